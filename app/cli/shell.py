"""Shared by commands: the acting user, reading of files, and access to the store.

Functions import what they use when called, because `slimboard --help` loads this module.
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
    """A command failed; the message is for the terminal."""


@dataclass(frozen=True)
class Who:
    """The user and project for which commands act."""

    user: str = LOCAL_USER
    project: str = ""

    def actor(self) -> "Actor":
        """The user in the project; raises CommandError if they have no role in it."""
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
    """The text of a file with a `document`; raises SpecError if it is not text."""
    try:
        return file.read()
    except UnicodeDecodeError as error:
        remedy = "Choose a YAML file saved as UTF-8."
        raise SpecError.of(document, file.name, "is not UTF-8 text", remedy) from error


def read_spec(recipe: TextIO) -> "RunSpec":
    """The spec in a file; raises SpecError, also if it is not text."""
    from core.spec.model import RunSpec

    return RunSpec.from_yaml(read_text(recipe, "spec"))


@contextmanager
def load_actions() -> Iterator[ModuleType]:
    """The actions on runs, loaded only by commands that need them; a refusal becomes a CommandError."""
    from app.actions import runs
    from app.actions.actor import NotAllowed

    try:
        yield runs
    except NotAllowed as error:
        raise CommandError(str(error)) from error


def read_catalogue() -> "Catalogue":
    """The same techniques, models and tasks as on the pages."""
    from core.spec.catalogue import built_in
    from core.store import engine, techniques

    with engine.read_session() as s:
        rows = techniques.list_published(s)
    return built_in().merged((row.kind, row.name, row.entry) for row in rows)


def store_exists() -> bool:
    """Whether a store may exist; opening a missing SQLite file would create it."""
    import sqlalchemy

    from core.settings import settings

    url = sqlalchemy.make_url(settings().database_url)
    return url.get_backend_name() != "sqlite" or Path(str(url.database)).exists()


@contextmanager
def store() -> Iterator[None]:
    """Require a store that responds; raises CommandError that says what is missing."""
    from sqlalchemy.exc import NoResultFound, OperationalError

    from core.settings import settings
    from core.store import engine

    remedy = "Start Slimboard with `slimboard up`, or set SLIMBOARD_HOME or SLIMBOARD_DATABASE_URL."
    if not store_exists():
        raise CommandError(f"There is no store in {settings().home.absolute()}. {remedy}")
    try:
        found, expected = engine.revision()
        if found != expected:
            raise CommandError(f"The store is at revision {found}, not {expected}. Run `slimboard migrate`.")
        yield
    except OperationalError as error:
        raise CommandError(f"The store is not responding ({error.orig}). {remedy}") from error
    except NoResultFound:
        raise CommandError("This run does not exist.") from None
