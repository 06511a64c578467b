"""The documents of a bundle; parsing one validates everything that does not need the store."""

import json
import math
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from core.bundle.errors import BundleError
from core.measured import Fidelity, LatencyRow, MeasuredStage
from core.spec.pydantic_errors import list_problems
from core.store.models import FailureClass, RunStatus

FORMAT = 2
READABLE = (1, FORMAT)  # in format 1 Hugging Face models without a dtype are float32
RUN, STAGES, CURVES, LOG = "run.json", "stages.json", "curves.json", "log.json"
KEY = r"^[0-9a-f]{64}$"  # SHA-256, and a folder's name
Key = Annotated[str, Field(pattern=KEY)]
Moment = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]  # seconds since 1970
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


Step = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def _a_number(value: float) -> float:
    if value != value:
        raise ValueError("is not a number")
    return value


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Document):
    """The manifest's entry for a file."""

    sha256: Key
    bytes: Annotated[int, Field(ge=0)]


class BundleManifest(_Document):
    """`manifest.json`: which release wrote the bundle in which format, and every other file's checksum."""

    format: int
    release: str
    files: dict[str, FileEntry]


class BundledNote(_Document):
    """A note on the run."""

    text: Annotated[str, Field(max_length=100_000)]
    author: Annotated[str, Field(max_length=200)]
    created_at: Moment


class RunDocument(_Document):
    """`run.json`: fields as the columns of `run`."""

    number: int  # in the store it comes from
    name: Annotated[str, Field(max_length=200)]
    spec: dict[str, Any]
    status: Literal[RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED]
    failure: FailureClass | None
    failure_message: str
    attempt: int
    compute_seconds: float
    environment: dict[str, Any]
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    tags: list[Annotated[str, Field(min_length=1, max_length=60)]]
    notes: list[BundledNote]

    @field_validator("environment")
    @classmethod
    def _with_worker(cls, environment: dict[str, Any]) -> dict[str, Any]:
        if "worker" in environment:
            Elsewhere.model_validate(environment["worker"])
        return environment


class Elsewhere(_Document):
    """The worker on which an imported run executed: `environment["worker"]`."""

    name: str
    hardware: dict[str, Any] | None


class OperatingPointDocument(_Document):
    """A setting of a stage that needs no new weights."""

    name: str
    value: float
    score: float
    score_low: float
    score_high: float
    macs: int


class LatencyDocument(_Document):
    """A measured latency, its reference by key and its operating point by index in the stage's list."""

    row: LatencyRow
    reference_key: Key | None
    operating_point: int | None


class ArtifactDocument(_Document):
    """The store's record of a stage's artifact."""

    bytes: Annotated[int, Field(ge=0)]
    manifest_sha256: str


class StageDocument(_Document):
    """A measured stage; without a position if the run only compares with it."""

    measured: MeasuredStage
    created_at: Moment
    artifact: ArtifactDocument | None
    operating_points: list[OperatingPointDocument]

    @field_validator("measured")
    @classmethod
    def _plausible(cls, measured: MeasuredStage) -> MeasuredStage:
        if not re.fullmatch(KEY, measured.key):
            raise ValueError("has a key that is not a SHA-256 digest")
        layers = measured.details.get("layers", [])
        if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
            raise ValueError("has details.layers that is not a list of objects")
        return measured


class PlaceDocument(_Document):
    """A stage's position in the run, and its comparison with the run's reference."""

    position: Annotated[int, Field(ge=-1, le=64)]
    key: Key
    reused: bool
    reference_key: Key | None
    p_value: float | None
    score_delta: float | None
    score_delta_low: float | None
    score_delta_high: float | None
    fidelity: Fidelity | None = None  # bundles of earlier releases have none
    latencies: list[LatencyDocument]


class StagesDocument(_Document):
    """`stages.json`."""

    stages: list[StageDocument]
    places: list[PlaceDocument]


class CurvesDocument(_Document):
    """`curves.json`: (step, value) pairs by curve, which is named "<position>/<name>"."""

    curves: dict[
        Annotated[str, Field(min_length=1, max_length=100)],
        list[tuple[Step, Annotated[float, AfterValidator(_a_number)]]],
    ]


class Line(_Document):
    """A line of the log."""

    at: Moment
    attempt: int
    level: Literal["warning", "error"]
    message: str


class LogDocument(_Document):
    """`log.json`: warnings and errors, the oldest first."""

    lines: list[Line]


Document = TypeVar("Document", bound=_Document)


def to_json(document: _Document) -> bytes:
    """The document as strict JSON: numbers that are not finite are written as strings ("nan")."""
    return json.dumps(_finite(document.model_dump()), ensure_ascii=False, allow_nan=False, indent=1).encode()


def parse(name: str, data: bytes, kind: type[Document]) -> Document:
    """Parse the document in a file; raises BundleError with the reason if it is invalid."""
    try:
        return kind.model_validate(plain_json(name, data))
    except ValidationError as error:
        first = list_problems(error, whole="the whole document")[0]
        raise BundleError(f"{name} is not in a form that this release reads: {first.field} {first.message}") from error


def plain_json(name: str, data: bytes) -> Any:
    """The data in strict JSON that a store can keep; raises BundleError."""
    try:
        value = json.loads(data.decode())
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        written.encode()  # halves of characters raise
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name} is not JSON that a store can keep: {error}") from error
    if _NUL.search(written):
        raise BundleError(f"{name} is not JSON that a store can keep: it contains a NUL character")
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
