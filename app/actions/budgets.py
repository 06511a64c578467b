"""Queueing a run with another budget, from a sensitivity table that another run has measured."""

from typing import Any

from app.actions import runs
from app.actions.actor import Actor
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec, StepSpec

TECHNIQUE = "mixed_precision"


def queue_budget(
    actor: Actor, run_id: int, spec: RunSpec, position: int, settings: dict[str, Any], catalogue: Catalogue
) -> int:
    """Queue the recipe up to the sensitivity stage at `position`, then mixed precision; returns the run's number.

    The stages up to there have equal keys, so that they are not computed again.
    """
    return runs.submit(actor, with_budget(spec, position, settings), catalogue, cloned_from=run_id)


def with_budget(spec: RunSpec, position: int, settings: dict[str, Any]) -> RunSpec:
    """The spec of that run."""
    recipe = [*spec.recipe[:position], StepSpec(technique=TECHNIQUE, settings=settings)]
    return spec.model_copy(update={"recipe": recipe, "name": ""})
