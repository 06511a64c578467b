"""An arm carried out for one seed: the stages of its recipe, and the test loss of each example."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.sparsity.arms import Recipe
from benchmarks.sparsity.vehicles import VEHICLES
from core.artifacts import artifact
from core.artifacts.store import ArtifactStore
from core.engine.pipeline import Execution
from core.engine.recording import MemoryRecord
from core.measure.score import evaluate, principal
from core.measure.size import tensor_payload
from core.spec.model import RunSpec


@dataclass(frozen=True)
class Outcome:
    """What an arm left: packed bytes, the principal score in its unit, mean loss of each test example [N] in nats."""

    size: int
    score: float
    losses: Tensor


def spec_of(vehicle: str, recipe: Recipe, seed: int, folder: Path, scale: float) -> RunSpec:
    """The run of an arm; trainings get the vehicle's updates times their share and `scale`."""
    chosen = VEHICLES[vehicle]
    steps = []
    for step in recipe:
        ((name, settings),) = step.items()
        if name == "train":
            share = settings.get("share", 1.0)
            own = {key: value for key, value in settings.items() if key != "share"}
            steps.append(
                {name: {**chosen.training, "evaluations": 0, "steps": _updates(chosen.steps, share, scale), **own}}
            )
        else:
            steps.append(step)
    return RunSpec.parse({"model": chosen.source(folder), "task": chosen.task, "seed": seed, "recipe": steps})


def _updates(steps: int, share: float, scale: float) -> int:
    return max(1, round(steps * share * scale))


def keep_in(folder: Path) -> None:
    """Let this process and its children keep what they compute and read below `folder`, and wait for nobody.

    Nothing is timed here, so that the host's measuring lock is not needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["SLIMBOARD_DATA"] = str(folder)
    os.environ["SLIMBOARD_LOCK"] = str(folder / "lock")


def outcome(spec: RunSpec, folder: Path, device: str) -> Outcome:
    """Carry a run's steps out, or find what an earlier call left in `folder`."""
    execution = execution_of(spec, folder, device)
    target = last_stage(execution)
    examples = _examples(execution, target)
    return Outcome(
        size=tensor_payload(target / artifact.PACKED),
        score=principal(execution.task, examples),
        losses=examples["nats"] / examples.get("tokens", torch.ones(1)),
    )


def execution_of(spec: RunSpec, folder: Path, device: str) -> Execution:
    """A run whose stages are kept in `folder`."""
    store = ArtifactStore(str(folder / "artifacts"), folder / "artifacts")
    return Execution(spec, MemoryRecord(), store, torch.device(device), None)


def last_stage(execution: Execution) -> Path:
    """The artifact of a run's last stage, computed if it is not there yet."""
    return execution.realize(execution.main, len(execution.main.keys) - 1)


def _examples(execution: Execution, target: Path) -> dict[str, Tensor]:
    file = target / artifact.EXAMPLES
    if not file.exists():
        model = artifact.load_models(target, execution.device)["main"]
        save_file(evaluate(model, execution.task, "test", device=execution.device, batch_size=256), file)
    return load_file(file)
