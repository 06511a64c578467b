"""The demo recipes of `slimboard up --demo`, each queued once."""

from pathlib import Path

from sqlalchemy import select

from app.actions import runs
from app.cli import shell
from core.spec.model import RunSpec
from core.store import engine
from core.store.models import Run

RECIPES = Path(__file__).with_name("demo_recipes")


def queue() -> int:
    """Queue the recipes whose names no run of the project has yet; returns how many."""
    actor = shell.Who().actor()
    catalogue = shell.read_catalogue()
    with engine.read_session() as s:
        known = set(s.scalars(select(Run.name).where(Run.project_id == actor.project.id)))
    specs = [RunSpec.from_yaml(file.read_text()) for file in sorted(RECIPES.glob("*.yaml"))]
    new = [spec for spec in specs if spec.name not in known]
    for spec in new:
        runs.submit(actor, spec, catalogue)
    return len(new)
