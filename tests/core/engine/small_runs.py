"""Small runs of the pipeline, and what their tests ask of them."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from core.artifacts.store import ArtifactStore
from core.engine.pipeline import execute
from core.engine.recording import MemoryRecord
from core.integrity import PACKED
from core.measured import FoundRun, StageRecord
from core.spec.model import RunSpec

TRAIN = {"train": {"steps": 12, "batch_size": 32, "evaluations": 0}}
DISTIL = {"distill_logits": {"teacher": "stage:0"}}
MORE = {"train": {"steps": 6, "batch_size": 32, "evaluations": 0}}


def spec(*recipe: object, **changes: object) -> RunSpec:
    return RunSpec.parse(
        {
            "model": {"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 2},
            "task": "builtin:digits",
            "recipe": list(recipe),
            "measure": {"repeats": 5, "test_examples": 64, "memory": False},
            **changes,
        }
    )


def run(
    folder: Path, asked: RunSpec, record: MemoryRecord | None = None, resume: Path | None = None
) -> list[StageRecord]:
    record = record or MemoryRecord()
    return execute(asked, record, artifacts=ArtifactStore(str(folder), folder), resume=resume)


def weights(folder: Path, stage: StageRecord) -> dict[str, torch.Tensor]:
    return load_file(folder / stage.artifact / PACKED)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class KnowsOneRun(MemoryRecord):
    """A record in which run 7 is finished."""

    def __init__(self, stages):
        super().__init__()
        self.stages = list(stages)
        self.found = FoundRun(stages[-1].measured.key, stages[1].measured.key)

    def find_run(self, run_id):
        return self.found if run_id == 7 else None
