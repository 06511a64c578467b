"""Submitting, cancelling and reordering runs. Each action checks the role, commits, then notifies the workers.

Actions do not wait for a worker: a run is a committed row, and if the notification is lost, the workers' own timers
find it.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from app.actions.actor import Actor, NotAllowed, require_member
from core.errors import Problem, SpecError
from core.spec import run_references
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec
from core.spec.schema_validation import validate
from core.store import checks, moves, queue, runs, users
from core.store.engine import session
from core.store.models import Role, Run
from worker.celery_app import enqueue, enqueue_check

log = logging.getLogger(__name__)


def submit(actor: Actor, spec: RunSpec, catalogue: Catalogue, cloned_from: int | None = None) -> int:
    """Queue a run and return its number; raises SpecError for a spec that cannot run, NotAllowed for a viewer."""
    validate(spec, catalogue)
    with session() as s:
        require_member(s, actor, actor.project.id, "submit a run")
        _require_visible_runs(s, actor, spec)
        run = runs.submit_run(
            s,
            spec,
            project_id=actor.project.id,
            owner_id=actor.user.id,
            needs=needs(spec, catalogue),
            cloned_from_id=cloned_from,
        )
        run_id = run.id
    _wake(spec.device)
    return run_id


def needs(spec: RunSpec, catalogue: Catalogue) -> list[str]:
    """What a worker must provide: techniques and runtimes, each with its schema's hash, and their requirements."""
    named = [
        f"{kind}:{name}#{entry['hash']}" if entry else f"{kind}:{name}"
        for kind, name, entry in catalogue.named_by(spec)
    ]
    return [*dict.fromkeys(named), *sorted(catalogue.requires(spec))]


def request_check(spec: RunSpec) -> list[Problem] | None:
    """Validation errors from a worker that built the model without weights; None until one has answered."""
    with session() as s:
        answer = checks.ask(s, spec)
    if answer is None:
        with _tolerate_no_broker():
            enqueue_check(spec.hash, spec.device)
    return answer


def cancel(actor: Actor, run_ids: Iterable[int]) -> int:
    """Cancel runs: queued ones at once, others by asking their worker. Returns how many had not ended yet."""
    with session() as s:
        return sum(queue.cancel_run(s, run.id) for run in _own_runs(s, actor, run_ids, "cancel"))


def requeue(actor: Actor, run_ids: Iterable[int]) -> int:
    """Requeue ended runs; their finished stages are kept. Returns how many had ended."""
    devices = set()
    with session() as s:
        again = 0
        for run in _own_runs(s, actor, run_ids, "requeue"):
            device = run.device
            if queue.requeue_run(s, run.id):
                again += 1
                devices.add(device)
    for device in devices:
        _wake(device)
    return again


def move(actor: Actor, run_id: int, where: str) -> bool:
    """Move a queued run to the "top", one "up" or one "down"; False if it is already there."""
    with session() as s:
        _own_runs(s, actor, [run_id], "move")
        return moves.move_run(s, run_id, where)


def rename(actor: Actor, run_id: int, name: str) -> None:
    """Rename a run."""
    with session() as s:
        _own_runs(s, actor, [run_id], "rename")
        runs.rename_run(s, run_id, name.strip())


def list_named_runs(spec: RunSpec) -> list[int]:
    """The numbers of the runs that a spec uses as model, teacher or reference."""
    return sorted({named.number for named in run_references.list_named_runs(spec.to_dict())})


def _require_visible_runs(s: Session, actor: Actor, spec: RunSpec) -> None:
    """Raise SpecError if the spec uses a run of a project in which the actor has no role."""
    for number in list_named_runs(spec):
        run = runs.find_run(s, number)
        if run is None or users.find_role(s, actor.user.id, run.project_id) is None:
            remedy = "Choose one of the runs on the Runs page."
            raise SpecError.of("model", f"run:{number}", "is not a run of one of your projects", remedy)


def _own_runs(s: Session, actor: Actor, run_ids: Iterable[int], what: str) -> list[Run]:
    """The runs; each must be the actor's own or in a project that the actor owns."""
    found = [runs.get_run(s, run_id) for run_id in run_ids]
    for run in found:
        role = require_member(s, actor, run.project_id, f"{what} a run")
        if role != Role.OWNER and run.owner_id != actor.user.id:
            raise NotAllowed(
                f"Run {run.id} belongs to someone else. Only they or an owner of the project can {what} it."
            )
    return found


def _wake(device: str) -> None:
    with _tolerate_no_broker():
        enqueue(device)


@contextmanager
def _tolerate_no_broker() -> Iterator[None]:
    """The row is committed: without a broker, the workers' timers find it a few seconds later."""
    try:
        yield
    except OperationalError as error:
        log.warning("The queue's Redis is unreachable (%s); workers will poll the store.", error)
