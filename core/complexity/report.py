"""What a survey of architectures found, as a file: Slimboard's own, and one of this installation. Loads no torch."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from pydantic import BaseModel

from core.complexity.fit import Exponent, exponent
from core.settings import settings

SHIPPED = Path(__file__).parent.parent / "architectures.json"
NAME = "architectures.json"  # below the artifacts
AT_ONCE, ONE_BY_ONE = 0.05, 10  # operations that another token adds in each block: fewer, and at least


class Parallel(StrEnum):
    """How a training step processes the tokens of a sequence, judged by its number of operations.

    Blocks need not depend on one another: a sparse attention may take them in turn to hold less.
    """

    YES = "yes"
    BLOCKS = "block by block"
    NO = "token by token"


class Costs(BaseModel):
    """What was measured at each of the survey's lengths; None if the architecture does not take one."""

    train_ms: list[float | None]  # forward and backward pass of one sequence
    forward_ms: list[float | None]
    decode_ms: list[float | None]  # one token after so many
    train_bytes: list[float | None]  # most that such a step holds beside weights and gradients of the step before
    state_bytes: list[float | None]  # what decoding keeps of so many tokens
    operations: list[float | None]  # calls of PyTorch's operators in a training step


QUANTITIES = tuple(name for name in Costs.model_fields if name != "operations")


class MeasuredArchitecture(BaseModel):
    """One architecture in one model."""

    name: str
    technique: str | None  # None: the model as it is
    model: str
    settings: dict[str, Any]
    summary: str
    paper: str
    costs: Costs


class SurveyConditions(BaseModel):
    """Where and how a survey was taken."""

    taken_at: str  # UTC
    hardware: str
    threads: int
    torch: str
    slimboard: str
    dtype: str
    dim: int
    depth: int
    heads: int
    rounds: int
    disturbed_share: float  # of the cores, which other processes used meanwhile


class SurveyReport(BaseModel):
    """All architectures at all lengths."""

    conditions: SurveyConditions
    lengths: list[int]
    architectures: list[MeasuredArchitecture]
    refused: dict[str, str]  # technique -> why it is not among them

    def fit(self, architecture: MeasuredArchitecture, quantity: str) -> Exponent | None:
        """How a quantity of an architecture grows with the length."""
        return exponent(self.lengths, getattr(architecture.costs, quantity))

    def parallel(self, architecture: MeasuredArchitecture) -> Parallel | None:
        """Whether it trains on all tokens of a sequence at once, by the operations that the longest sequence adds.

        None if they were not counted at two lengths.
        """
        counts = zip(self.lengths, architecture.costs.operations, strict=True)
        known = [(length, count) for length, count in counts if count is not None]
        if len(known) < 2:
            return None
        (shorter, fewer), (longer, more) = known[-2:]
        added = (more - fewer) / (longer - shorter) / self.conditions.depth
        return Parallel.YES if added < AT_ONCE else Parallel.BLOCKS if added < ONE_BY_ONE else Parallel.NO


def load_shipped() -> SurveyReport:
    """The survey that comes with Slimboard."""
    return SurveyReport.model_validate_json(SHIPPED.read_text())


def load() -> SurveyReport | None:
    """The survey of this installation; None where none was saved. Raises ValueError if it cannot be read."""
    filesystem, root = url_to_fs(settings().artifacts_url)
    file = f"{root}/{NAME}"
    if not filesystem.exists(file):
        return None
    return SurveyReport.model_validate_json(filesystem.cat_file(file))


def save(report: SurveyReport) -> str:
    """Keep a survey below the artifacts, in place of an earlier one; its address."""
    filesystem, root = url_to_fs(settings().artifacts_url)
    filesystem.makedirs(root, exist_ok=True)
    filesystem.pipe_file(f"{root}/{NAME}", as_text(report).encode())
    return f"{root}/{NAME}"


def as_text(report: SurveyReport) -> str:
    """The file's text: numbers of one quantity on one line."""
    plain = report.model_dump(mode="json")
    lines = [json.dumps(each) for each in plain.pop("architectures")]
    head = json.dumps(plain, indent=1).rstrip().removesuffix("}").rstrip()
    return f'{head},\n "architectures": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
