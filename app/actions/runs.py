"""What a user may do. Each action checks the role, commits, and only then tells the workers.

Pages and the command line call these. Nobody waits for a worker: a run is a committed row, and where the
message that there is work gets lost, the workers' own timers find it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from core.bundle import insert
from core.bundle.errors import BundleError
from core.bundle.read import Bundle
from core.errors import Problem, SpecError
from core.spec import run_references
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec
from core.spec.schema_validation import validate
from core.store import champions, checks, favourites, moves, queue, runs, users, views
from core.store.engine import session
from core.store.models import Role, Run, SavedView
from core.store.tradeoffs.filters import Conditions
from worker.celery_app import enqueue, enqueue_check

log = logging.getLogger(__name__)


class NotAllowed(Exception):
    """The user's role does not permit the action; the text says what would."""


def submit(user_id: int, project_id: int, spec: RunSpec, catalogue: Catalogue, cloned_from: int | None = None) -> int:
    """Queue a run and return its number; raises SpecError for a spec that cannot run, NotAllowed for a viewer."""
    validate(spec, catalogue)
    with session() as s:
        require_member(s, user_id, project_id, "submit a run")
        _require_visible(s, user_id, spec)
        run = runs.submit_run(
            s,
            spec,
            project_id=project_id,
            owner_id=user_id,
            needs=needs(spec, catalogue),
            cloned_from_id=cloned_from,
        )
        run_id = run.id
    _wake(spec.device)
    return run_id


def import_bundle(user_id: int, project_id: int, bundle: Bundle, catalogue: Catalogue, *, again: bool = False) -> int:
    """Add a bundle's run as an ended one of the user and return its number; raises BundleError where it is here.

    What it needs to be queued again is what its spec needs here. A run that started from another one can never be
    queued: that other run's number names something else here.
    """
    wanted = [
        *needs(bundle.spec, catalogue),
        *(f"run:{n} of the store that it comes from" for n in named_runs(bundle.spec)),
    ]
    with session() as s:
        require_importable(s, user_id, project_id, bundle, again=again)
        return insert.add_run(s, bundle, project_id=project_id, owner_id=user_id, needs=wanted)


def require_importable(s: Session, user_id: int, project_id: int, bundle: Bundle, *, again: bool) -> None:
    """Raise NotAllowed for a viewer, and BundleError where the run is in the project already, unless `again`."""
    require_member(s, user_id, project_id, "import a run")
    known = None if again else insert.find_identical(s, bundle, project_id)
    if known is not None:
        raise BundleError(f"Run {known} of this project is this run already. With --again it is added once more.")


def needs(spec: RunSpec, catalogue: Catalogue) -> list[str]:
    """What a worker must provide: techniques and runtimes, each as its form was published, and what they require."""
    named = [
        f"{kind}:{name}#{entry['hash']}" if entry else f"{kind}:{name}"
        for kind, name, entry in catalogue.named_by(spec)
    ]
    return [*dict.fromkeys(named), *sorted(catalogue.requires(spec))]


def ask(spec: RunSpec) -> list[Problem] | None:
    """What a worker finds wrong once it has built the model without weights; None until one has answered."""
    with session() as s:
        answer = checks.ask(s, spec)
    if answer is None:
        with _perhaps_no_broker():
            enqueue_check(spec.hash, spec.device)
    return answer


def cancel(user_id: int, run_ids: Iterable[int]) -> int:
    """Stop runs: at once while queued, else by asking their worker. Returns how many had not ended yet."""
    with session() as s:
        return sum(queue.cancel_run(s, run.id) for run in _own(s, user_id, run_ids, "cancel"))


def requeue(user_id: int, run_ids: Iterable[int]) -> int:
    """Queue ended runs again; their finished stages stand. Returns how many had ended."""
    devices = set()
    with session() as s:
        again = 0
        for run in _own(s, user_id, run_ids, "requeue"):
            device = run.device
            if queue.requeue_run(s, run.id):
                again += 1
                devices.add(device)
    for device in devices:
        _wake(device)
    return again


def move(user_id: int, run_id: int, where: str) -> bool:
    """Move a queued run to the "top", one "up" or one "down"; False where it is there already."""
    with session() as s:
        _own(s, user_id, [run_id], "move")
        return moves.move_run(s, run_id, where)


def annotate(user_id: int, run_id: int, text: str) -> None:
    """Add a note to a run; every member may."""
    with session() as s:
        require_member(s, user_id, runs.get_run(s, run_id).project_id, "write a note")
        runs.add_note(s, run_id, user_id, text.strip())


def rename(user_id: int, run_id: int, name: str) -> None:
    """Give a run another name."""
    with session() as s:
        _own(s, user_id, [run_id], "rename")
        runs.rename_run(s, run_id, name.strip())


def tag(user_id: int, run_id: int, name: str) -> None:
    """Tag a run; every member may."""
    with session() as s:
        require_member(s, user_id, runs.get_run(s, run_id).project_id, "tag a run")
        runs.add_tag(s, run_id, name.strip())


def untag(user_id: int, run_id: int, name: str) -> None:
    """Take a tag off a run; every member may."""
    with session() as s:
        require_member(s, user_id, runs.get_run(s, run_id).project_id, "untag a run")
        runs.remove_tag(s, run_id, name)


def star(user_id: int, run_ids: Iterable[int]) -> int:
    """Give runs the user's star; whoever sees a run may. Returns how many they are."""
    return _mark(user_id, run_ids, favourites.star)


def unstar(user_id: int, run_ids: Iterable[int]) -> int:
    """Take the user's star off runs. Returns how many they are."""
    return _mark(user_id, run_ids, favourites.unstar)


def _mark(user_id: int, run_ids: Iterable[int], change: Callable[[Session, int, list[int]], None]) -> int:
    asked = list(run_ids)
    with session() as s:
        for run_id in asked:
            _sees(s, user_id, runs.get_run(s, run_id).project_id)
        change(s, user_id, asked)
    return len(asked)


def save_view(user_id: int, project_id: int, page: str, name: str, query: str) -> int:
    """Save a page's query under a name of the user's own, and return its number; whoever sees the project may."""
    with session() as s:
        _sees(s, user_id, project_id)
        view = views.save_view(
            s, project_id=project_id, owner_id=user_id, page=page, name=_view_name(name), query=query
        )
        return int(view.id)


def rename_view(user_id: int, view_id: int, name: str) -> None:
    """Give a view another name; raises NameTakenError where its owner has one of that name on the page."""
    with session() as s:
        views.rename_view(s, _view(s, user_id, view_id, "rename"), _view_name(name))


def share_view(user_id: int, view_id: int, shared: bool) -> None:
    """Show a view to all of the project, or to its owner alone; members may share theirs."""
    with session() as s:
        view = _view(s, user_id, view_id, "share")
        require_member(s, user_id, view.project_id, "share a view")
        views.share_view(s, view, shared=shared)


def delete_view(user_id: int, view_id: int) -> None:
    """Forget a view."""
    with session() as s:
        views.delete_view(s, _view(s, user_id, view_id, "delete"))


def _view_name(name: str) -> str:
    return " ".join(name.split())[:100]


def _view(s: Session, user_id: int, view_id: int, what: str) -> SavedView:
    """The view, the user's own, or a shared one of a project that the user owns."""
    view = views.find_view(s, view_id)
    role = view and users.find_role(s, user_id, view.project_id)
    if view is None or role is None or not (view.owner_id == user_id or view.shared):
        raise NotAllowed("There is no such view here.")
    if view.owner_id != user_id and role != Role.OWNER:
        raise NotAllowed(f"This view is someone else's; only they or an owner of the project can {what} it.")
    return view


def _sees(s: Session, user_id: int, project_id: int) -> None:
    """Raise NotAllowed where the user has no role in the project."""
    if users.find_role(s, user_id, project_id) is None:
        raise NotAllowed("This is of a project in which you have no role; ask one of its owners.")


def crown(user_id: int, run_id: int, position: int, device: Conditions, note: str) -> None:
    """Make a run's stage the champion of a device; every member may. Raises NotTimedError where it was not timed."""
    with session() as s:
        project_id = runs.get_run(s, run_id).project_id
        require_member(s, user_id, project_id, "name a champion")
        champions.crown(
            s,
            project_id=project_id,
            device=device,
            run_id=run_id,
            position=position,
            user_id=user_id,
            note=note.strip(),
        )


def dethrone(user_id: int, project_id: int, task_hash: str, device: Conditions, note: str) -> None:
    """Leave a device without a champion; every member may."""
    with session() as s:
        require_member(s, user_id, project_id, "take a champion's title")
        champions.dethrone(
            s, project_id=project_id, task_hash=task_hash, device=device, user_id=user_id, note=note.strip()
        )


def set_role(user_id: int, project_id: int, member_id: int, role: Role | None) -> None:
    """Give someone a role in a project, or none; owners may. Raises ValueError for the last owner."""
    with session() as s:
        if users.find_role(s, user_id, project_id) != Role.OWNER:
            raise NotAllowed("Only an owner of the project can give roles.")
        users.set_role(s, member_id, project_id, role)


def require_member(s: Session, user_id: int, project_id: int, what: str) -> Role:
    """The user's role in the project, member at least."""
    role = users.find_role(s, user_id, project_id)
    if role not in (Role.MEMBER, Role.OWNER):
        raise NotAllowed(f"To {what} you must be a member of the project; ask one of its owners.")
    return role


def _require_visible(s: Session, user_id: int, spec: RunSpec) -> None:
    """Raise SpecError where the spec starts from, learns from or is compared with a run of a foreign project."""
    for number in named_runs(spec):
        run = runs.find_run(s, number)
        if run is None or users.find_role(s, user_id, run.project_id) is None:
            remedy = "Choose one of the runs on the Runs page."
            raise SpecError.of("model", f"run:{number}", "is no run of a project of yours", remedy)


def named_runs(spec: RunSpec) -> list[int]:
    """The numbers of the runs that a spec starts from, learns from or is compared with."""
    return sorted({named.number for named in run_references.named_runs(spec.to_dict())})


def _own(s: Session, user_id: int, run_ids: Iterable[int], what: str) -> list[Run]:
    """The runs, each the user's own or in a project that the user owns."""
    found = [runs.get_run(s, run_id) for run_id in run_ids]
    for run in found:
        if require_member(s, user_id, run.project_id, f"{what} a run") != Role.OWNER and run.owner_id != user_id:
            raise NotAllowed(f"Run {run.id} is someone else's; only they or an owner of the project can {what} it.")
    return found


def _wake(device: str) -> None:
    with _perhaps_no_broker():
        enqueue(device)


@contextmanager
def _perhaps_no_broker() -> Iterator[None]:
    """The row is committed: without a broker, the workers' timers find it a few seconds later."""
    try:
        yield
    except OperationalError as error:
        log.warning("The queue's Redis cannot be reached (%s); workers will look by themselves.", error)
