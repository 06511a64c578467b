from sqlalchemy import update

from core.errors import Problem
from core.store import checks, events, queue, runs, techniques, waiting, workers
from core.store.clock import now
from core.store.models import Run, Worker
from tests import factories


def register(session, name="host-cpu-1", device="cpu", offers=None, provides=("cpu",)):
    return workers.register_worker(session, name, device, hardware={}, offers=offers or {}, provides=provides)


def age(session, worker_id, seconds):
    session.execute(update(Worker).where(Worker.id == worker_id).values(last_seen_at=now() - seconds))


def test_worker_under_the_same_name_is_entered_once(session):
    first = register(session)
    workers.stop_worker(session, first)
    assert register(session) == first
    [row] = workers.list_workers(session)
    assert (row.stopped_at, row.lost) == (None, False)


def test_worker_that_is_silent_is_lost_and_one_that_stopped_is_not(session):
    silent, alive, stopped = (register(session, name) for name in "abc")
    for worker_id in (silent, stopped):
        age(session, worker_id, 100)
    workers.stop_worker(session, stopped)
    age(session, stopped, 100)
    workers.record_heartbeat(session, alive)
    assert {row.name: bool(row.lost) for row in workers.list_workers(session, lost_after=60)} == {
        "a": True,
        "b": False,
        "c": False,
    }


def test_worker_is_shown_with_its_run(session):
    worker_id = register(session)
    run = factories.submit(session, name="mine")
    queue.claim_next_run(session, worker_id, "cpu", [], 30.0)
    [row] = workers.list_workers(session)
    assert (row.run_id, row.run_name) == (run.id, "mine")


def test_forgotten_are_the_unseen_that_no_run_names(session):
    named, unseen, _ = (register(session, name) for name in "abc")
    factories.submit(session)
    queue.claim_next_run(session, named, "cpu", [], 30.0)
    for worker_id in (named, unseen):
        age(session, worker_id, 1000)
    workers.forget_workers(session, 500)
    assert {name for name in "abc" if session.query(Worker).filter_by(name=name).count()} == {"a", "c"}


def test_queued_run_says_what_it_waits_for(session):
    owner = factories.submit(session)
    submit = {"project_id": owner.project_id, "owner_id": owner.owner_id}
    cuda = runs.submit_run(session, factories.spec(), needs=["cuda", "technique:rtn#ab"], **submit)
    gpu = runs.submit_run(session, factories.spec(device="gpu"), needs=[], **submit)
    ids = [owner.id, cuda.id, gpu.id]
    assert waiting.find_waiting(session, ids, 60)[owner.id] == "a worker"
    worker_id = register(session, offers={"technique:rtn": "ab"})
    assert waiting.find_waiting(session, ids, 60) == {
        cuda.id: "a worker that provides cuda",
        gpu.id: "a worker with a GPU",
    }
    age(session, worker_id, 100)
    assert waiting.find_waiting(session, [owner.id], 60) == {owner.id: "a worker"}


def test_offers_of_living_workers_by_hash(session):
    register(session, "a", offers={"technique:rtn": "1"})
    register(session, "b", offers={"technique:rtn": "2", "technique:svd": "3"})
    workers.stop_worker(session, register(session, "c", offers={"technique:rtn": "1"}))
    assert techniques.list_offers(session) == {
        "technique:rtn": {"1": ["a"], "2": ["b"]},
        "technique:svd": {"3": ["b"]},
    }


def test_catalogue_is_published_once(session):
    for _ in range(2):
        techniques.publish(session, [("technique", "rtn", "1", {"summary": "first"})])
    techniques.publish(session, [("technique", "rtn", "2", {"summary": "second"})])
    assert sorted(row.hash for row in techniques.list_published(session)) == ["1", "2"]


def test_question_about_a_spec_is_asked_until_it_is_answered(session):
    spec = factories.spec()
    assert checks.ask(session, spec) is None
    assert checks.find_question(session, spec.hash) == spec.to_dict()
    problem = Problem("recipe[1].rtn.bits", 9, "must be at most 8", "Choose a number from 2 to 8.")
    checks.answer(session, spec.hash, [problem])
    assert checks.ask(session, spec) == [problem]
    assert checks.find_question(session, spec.hash) is None
    assert checks.ask(session, factories.spec(seed=1)) is None


def test_log_is_read_from_where_one_stopped(session):
    run = factories.submit(session)
    events.add_events(session, run.id, 1, [(float(at), "info" if at % 2 else "error", f"line {at}") for at in range(5)])
    first = events.list_events(session, run.id, limit=3)
    rest = events.list_events(session, run.id, after_id=first[-1].id)
    assert [row.message for row in [*first, *rest]] == [f"line {at}" for at in range(5)]
    assert [row.message for row in events.list_events(session, run.id, levels=("info",))] == ["line 1", "line 3"]
    assert [row.message for row in events.load_last_events(session, run.id, 2)] == ["line 3", "line 4"]


def test_recipe_is_a_line_with_the_methods_in_brackets(session):
    methods = [{"sr_ste": {"n": 2, "m": 4}}, "distill_logits"]
    spec = factories.spec(recipe=[{"train": {"steps": 5, "methods": methods}}, "rtn"])
    assert runs.describe_recipe(spec) == "train (sr_ste, distill_logits) → rtn"
    assert runs.describe_recipe(factories.spec(recipe=[])) == "no steps"


def test_identical_runs_are_found_whatever_their_name(session):
    first = factories.submit(session, name="a")
    factories.submit(session, name="a", seed=1)
    twin = factories.submit(session, name="b")
    found = runs.find_identical(session, first.project_id, factories.spec().hash)
    assert [row.id for row in found] == [twin.id, first.id]


def test_typical_time_is_of_the_same_spec_else_of_the_same_recipe(session):
    times = {"a": (0, 10.0), "b": (1, 20.0), "c": (1, 40.0)}
    for name, (seed, seconds) in times.items():
        run = factories.submit(session, name=name, seed=seed)
        session.execute(update(Run).where(Run.id == run.id).values(status="done", compute_seconds=seconds))
    spec = factories.spec(seed=1)
    recipe = runs.describe_recipe(spec)
    assert runs.estimate_seconds(session, spec.hash, "", "", "") == 30.0
    assert runs.estimate_seconds(session, "new", run.model, run.task, recipe) == 70.0 / 3
    assert runs.estimate_seconds(session, "new", run.model, run.task, "other") is None
