"""What a user may do, by role; and that a run is safe once it is committed."""

import pytest
from kombu.exceptions import OperationalError

from app.actions import members, runs
from app.actions.actor import NotAllowed
from core.errors import SpecError
from core.spec.catalogue import built_in
from core.spec.model import RunSpec
from core.store import queue, users, workers
from core.store.engine import read_session, session
from core.store.models import Membership, Project, Role, Run, RunNeed, RunStatus
from core.store.waiting import find_waiting, provided
from tests.actors import actor
from tests.app.catalogues import CATALOGUE

SPEC = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": ["train", {"rtn": {"bits": 4}}]})


@pytest.fixture
def people(store):
    """Numbers of an owner, a member, a viewer and a stranger, and of their project."""
    with session() as s:
        ids = {name: users.enrol(s, name).id for name in ("owner", "member", "viewer", "stranger")}
        project_id = users.list_projects(s, ids["owner"])[0].id
        s.add(Membership(user_id=ids["member"], project_id=project_id, role=Role.MEMBER))
        s.add(Membership(user_id=ids["viewer"], project_id=project_id, role=Role.VIEWER))
    return {**ids, "project": project_id}


def status(run_id):
    with read_session() as s:
        return s.get_one(Run, run_id).status


def test_submit_commits_and_then_wakes_the_workers(people, store, monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "enqueue", lambda device: seen.append((device, status(1))))
    assert runs.submit(actor(people["member"], people["project"]), SPEC, CATALOGUE) == 1
    assert seen == [("any", RunStatus.QUEUED)]


def test_a_broker_that_is_down_loses_no_run(people, monkeypatch):
    def refuse(device):
        raise OperationalError("connection refused")

    monkeypatch.setattr(runs, "enqueue", refuse)
    run_id = runs.submit(actor(people["member"], people["project"]), SPEC, CATALOGUE)
    assert status(run_id) == RunStatus.QUEUED


def test_a_run_needs_its_techniques_as_they_were_published(people):
    run_id = runs.submit(actor(people["member"], people["project"]), SPEC, CATALOGUE)
    with read_session() as s:
        needs = set(s.query(RunNeed.need).where(RunNeed.run_id == run_id).all())
    assert needs == {("technique:train#train",), ("technique:rtn#rtn",), ("runtime:eager#nothing",)}


def test_a_run_waits_for_a_worker_with_its_runtime_and_says_so(people):
    timed = RunSpec.parse({**SPEC.to_dict(), "measure": {"runtimes": [{"onnxruntime": {"optimization": "none"}}]}})
    run_id = runs.submit(actor(people["member"], people["project"]), timed, CATALOGUE)
    offers = {"technique:train": "train", "technique:rtn": "rtn", "runtime:onnxruntime": "onnxruntime"}
    with session() as s:
        plain = workers.register_worker(s, "plain", "cpu", hardware={}, offers=offers, provides=["cpu"])
        assert queue.claim_next_run(s, plain, "cpu", provided(["cpu"], offers), 60) is None
        assert find_waiting(s, [run_id], 60) == {run_id: "a worker that provides onnxruntime"}
        have = ["cpu", "onnxruntime"]
        able = workers.register_worker(s, "able", "cpu", hardware={}, offers=offers, provides=have)
        assert find_waiting(s, [run_id], 60) == {}
        assert queue.claim_next_run(s, able, "cpu", provided(have, offers), 60).id == run_id


def test_a_spec_that_cannot_run_is_refused(people):
    wrong = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": [{"rtn": {"bits": 9}}]})
    with pytest.raises(SpecError, match=r"recipe\[0\]\.rtn\.bits"):
        runs.submit(actor(people["member"], people["project"]), wrong, CATALOGUE)


@pytest.mark.parametrize("who", ["viewer", "stranger"])
def test_only_members_submit(people, who):
    with pytest.raises(NotAllowed):
        runs.submit(actor(people[who], people["project"]), SPEC, CATALOGUE)


@pytest.mark.parametrize(("who", "allowed"), [("owner", True), ("member", False), ("viewer", False)])
def test_who_may_cancel_the_owners_run(people, who, allowed):
    run_id = runs.submit(actor(people["owner"], people["project"]), SPEC, CATALOGUE)
    if allowed:
        assert runs.cancel(actor(people[who]), [run_id]) == 1
        assert status(run_id) == RunStatus.CANCELLED
    else:
        with pytest.raises(NotAllowed):
            runs.cancel(actor(people[who]), [run_id])
        assert status(run_id) == RunStatus.QUEUED


def test_one_forbidden_run_cancels_none(people):
    own = runs.submit(actor(people["member"], people["project"]), SPEC, CATALOGUE)
    other = runs.submit(actor(people["owner"], people["project"]), SPEC, CATALOGUE)
    with pytest.raises(NotAllowed):
        runs.cancel(actor(people["member"]), [own, other])
    assert status(own) == RunStatus.QUEUED


def test_requeue_wakes_and_tells_how_many_had_ended(people, store):
    first = runs.submit(actor(people["member"], people["project"]), SPEC, CATALOGUE)
    second = runs.submit(actor(people["member"], people["project"]), SPEC, CATALOGUE)
    runs.cancel(actor(people["member"]), [first])
    store.clear()
    assert runs.requeue(actor(people["member"]), [first, second]) == 1
    assert status(first) == RunStatus.QUEUED
    assert store == ["any"]


def test_the_first_user_owns_the_project_and_later_ones_have_no_role(store):
    with session() as s:
        first, second = users.enrol(s, "first"), users.enrol(s, "second")
        assert [row.role for row in users.list_projects(s, first.id)] == [Role.OWNER]
        assert users.list_projects(s, second.id) == []
        assert users.enrol(s, "first").id == first.id


def test_a_project_keeps_an_owner(people):
    with pytest.raises(ValueError, match="at least one owner"):
        members.set_role(actor(people["owner"], people["project"]), people["owner"], Role.MEMBER)
    with pytest.raises(NotAllowed):
        members.set_role(actor(people["member"], people["project"]), people["member"], Role.OWNER)
    members.set_role(actor(people["owner"], people["project"]), people["member"], Role.OWNER)
    members.set_role(actor(people["owner"], people["project"]), people["owner"], None)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "run:1"},
        {"reference": {"source": "run:1"}},
        {"recipe": [{"train": {"methods": [{"distill_logits": {"teacher": "run:1"}}]}}]},
        {
            "reference": {
                "source": "builtin:vit",
                "recipe": [{"train": {"methods": [{"distill_logits": {"teacher": {"source": "run:1"}}}]}}],
            }
        },
    ],
)
def test_a_run_of_a_foreign_project_cannot_be_named(people, changes):
    with session() as s:
        s.add(project := Project(name="strangers only"))
        s.flush()
        s.add(Membership(user_id=people["stranger"], project_id=project.id, role=Role.OWNER))
        elsewhere = project.id
    spec = RunSpec.parse({**SPEC.to_dict(), **changes})
    assert runs.submit(actor(people["member"], people["project"]), SPEC, built_in()) == 1
    with pytest.raises(SpecError, match=r"run:1.*is not a run of one of your projects"):
        runs.submit(actor(people["stranger"], elsewhere), spec, built_in())
    assert runs.submit(actor(people["member"], people["project"]), spec, built_in()) == 2
