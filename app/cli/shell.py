"""What commands share: for whom they act, and whether the store is there.

Imports what it uses only when it is called: `slimboard --help` reads this module.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TextIO

from core.errors import SpecError
from core.store.names import LOCAL_USER

if TYPE_CHECKING:
    from app.actions.actor import Actor
    from core.spec.catalogue import Catalogue
    from core.spec.model import RunSpec


class CommandError(Exception):
    """Why a command cannot do what was asked, in words for the terminal."""


@dataclass(frozen=True)
class Who:
    """For whom the commands act."""

    user: str = LOCAL_USER
    project: str = ""

    def actor(self) -> "Actor":
        """The user in the project; raises CommandError where they have no role in it."""
        from app.actions.actor import Actor, ProjectRef, UserRef
        from core.store import engine, users

        with engine.session() as s:
            user = UserRef(users.enrol(s, self.user).id, self.user)
            projects = users.list_projects(s, user.id)
        found = [row for row in projects if self.project in ("", row.name)]
        if not found:
            raise CommandError(f"The user {self.user} has no role in {self.project or 'any project'}.")
        return Actor(user, ProjectRef(found[0].id, found[0].name), found[0].role)


def read_text(file: TextIO, document: str) -> str:
    """The text in a file that should hold a `document`; raises SpecError for one that is no text."""
    try:
        return file.read()
    except UnicodeDecodeError as error:
        remedy = "Choose the YAML file, and save it in UTF-8."
        raise SpecError.of(document, file.name, "is no text in UTF-8", remedy) from error


def read_spec(recipe: TextIO) -> "RunSpec":
    """The spec in a file; raises SpecError, also for one that is no text."""
    from core.spec.model import RunSpec

    return RunSpec.from_yaml(read_text(recipe, "spec"))


@contextmanager
def acting() -> Iterator[ModuleType]:
    """What a user may do, loaded only by the commands that do something; a refusal becomes a CommandError."""
    from app.actions import runs
    from app.actions.actor import NotAllowed

    try:
        yield runs
    except NotAllowed as error:
        raise CommandError(str(error)) from error


def catalogue() -> "Catalogue":
    """The techniques, models and tasks that the pages offer too."""
    from core.spec.catalogue import built_in
    from core.store import engine, techniques

    with engine.read_session() as s:
        rows = techniques.list_published(s)
    return built_in().merged((row.kind, row.name, row.entry) for row in rows)


def store_exists() -> bool:
    """Whether there can be a store to ask; asking SQLite for a file that is not there would make it."""
    import sqlalchemy

    from core.settings import settings

    url = sqlalchemy.make_url(settings().database_url)
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).exists()


@contextmanager
def store() -> Iterator[None]:
    """The store, where it is there and answers; raises CommandError that says what is missing."""
    from sqlalchemy.exc import NoResultFound, OperationalError

    from core.settings import settings
    from core.store import engine

    remedy = "Start Slimboard with `slimboard up`, or name the store in SLIMBOARD_HOME or SLIMBOARD_DATABASE_URL."
    if not store_exists():
        raise CommandError(f"There is no store in {settings().home.absolute()}. {remedy}")
    try:
        found, expected = engine.revision()
        if found != expected:
            raise CommandError(f"The store is at revision {found}, not {expected}. Run `slimboard migrate`.")
        yield
    except OperationalError as error:
        raise CommandError(f"The store does not answer ({error.orig}). {remedy}") from error
    except NoResultFound:
        raise CommandError("There is no such run.") from None
