"""The spec of a run, in YAML, in the store and on the page. Loads no torch.

A spec is validated in three places, each as early as possible: its structure here, its settings against
the published JSON schemas (`core/spec/schema_validation.py`), and everything that only the model reveals by a worker
that builds it on the meta device (`core/engine/pipeline.py`: `check`).
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_serializer, model_validator

from core.errors import SpecError
from core.spec import yaml_reader
from core.spec.pydantic_errors import list_problems


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)  # neither "8" nor true is a number


class _Source(BaseModel):
    """A source's name with settings that follow its schema."""

    model_config = ConfigDict(extra="allow", frozen=True)
    source: str

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """Everything except the source's name (and a model's nested recipe)."""
        return dict(self.model_extra or {})


def _from_short_form(value: Any, key: str, message: str) -> Any:
    """`name` or `{name: settings}` as the fields `key` and `settings`; ValueError for a mapping of several names."""
    if isinstance(value, str):
        return {key: value}
    if not isinstance(value, dict) or key in value:
        return value
    if len(value) != 1:
        raise ValueError(message.format(len(value)))
    name, settings = next(iter(value.items()))
    return {key: name, "settings": {} if settings is None else settings}


class StepSpec(_Spec):
    """A technique with its settings: `{rtn: {bits: 8}}`, or only the name `rtn`."""

    technique: str
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _from_short_form(value, "technique", "names {} techniques; a step is one technique with its settings")

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {self.technique: self.settings}


class ModelSpec(_Source):
    """A model reference: builtin:<name>, hf:<repo or folder>, run:<id>, stage:<n>, or a nested recipe."""

    recipe: list[StepSpec] = Field(default_factory=list)


class TaskSpec(_Source):
    """A task: builtin:<name>, file:<path> or hf:<dataset>, with its settings."""


OWN_DATA = "task"  # as a source of calibration: the calibration split of the run's own task


class CalibrationSource(_Source):
    """Data to calibrate with: `task`, or any source of tasks with its settings; `weight` is its part in a mix."""

    weight: float = Field(1.0, gt=0, le=1000, description="its part in the mix")

    @property
    def task(self) -> TaskSpec:
        """The data as a task."""
        return TaskSpec(source=self.source, **self.settings)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, (str, dict)) else value


class CalibrationSpec(_Spec):
    """The examples that steps calibrate with."""

    sources: Annotated[list[CalibrationSource], BeforeValidator(_listed)] = Field(
        default=[CalibrationSource(source=OWN_DATA)],
        min_length=1,
        max_length=8,
        description="data to calibrate with; of several, each gives its part by weight",
    )
    count: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="number of examples for steps that do not say calibration_examples themselves; theirs if empty",
        json_schema_extra={"when_empty": "the step's"},
    )
    length: int | None = Field(
        None,
        ge=8,
        le=131_072,
        description="tokens per example of language models; the task's if empty",
        json_schema_extra={"when_empty": "the task's"},
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=99_999,
        description="seed that draws the examples; the run's if empty",
        json_schema_extra={"when_empty": "the run's"},
    )


class RuntimeSpec(_Spec):
    """A runtime with its settings: `{compile: {mode: max-autotune}}`, or only the name `eager`."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return _from_short_form(value, "name", "names {} runtimes; an entry is one runtime with its settings")

    @model_serializer
    def _as_written(self) -> str | dict[str, Any]:
        return {self.name: self.settings} if self.settings else self.name


class MeasureSpec(_Spec):
    """Settings of measuring."""

    batch_sizes: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        default=[1], min_length=1, max_length=8, description="batch sizes at which latency is measured"
    )
    length: int | None = Field(
        None,
        ge=1,
        le=131072,
        description="tokens in the timed input; the task's if empty",
        json_schema_extra={"when_empty": "the task's"},
    )
    decode_tokens: int = Field(32, ge=0, le=4096, description="tokens to generate when timing decoding; 0 to skip")
    runtimes: list[RuntimeSpec] = Field(
        default=[RuntimeSpec(name="eager")],
        min_length=1,
        max_length=8,
        description="runtimes to measure latency with",
        json_schema_extra={"role": "runtimes"},
    )
    repeats: int = Field(30, ge=5, le=1000, description="rounds, in which stage and reference are timed alternately")
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads; all if empty",
        json_schema_extra={"when_empty": "all"},
    )
    memory: bool = Field(True, description="measure peak memory in a fresh process")
    test_examples: int | None = Field(
        None,
        ge=16,
        description="number of test examples to score; all if empty",
        json_schema_extra={"when_empty": "all"},
    )


class LimitSpec(_Spec):
    """Limits that stop a run."""

    minutes: float | None = Field(
        None, gt=0, description="maximum duration; no limit if empty", json_schema_extra={"when_empty": "no limit"}
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="maximum memory of the run's process; no limit if empty",
        json_schema_extra={"when_empty": "no limit"},
    )


class RunSpec(_Spec):
    """One recipe on one model and one task with one seed."""

    version: Literal[1] = 1
    name: str = Field("", max_length=200)
    model: ModelSpec
    task: TaskSpec
    seed: int = Field(0, ge=0, lt=2**31)
    device: Literal["any", "cpu", "gpu"] = "any"
    recipe: Annotated[list[StepSpec], BeforeValidator(_listed)] = Field(default_factory=list, max_length=64)
    calibration: CalibrationSpec = Field(default_factory=CalibrationSpec)
    reference: ModelSpec | None = None
    measure: MeasureSpec = Field(default_factory=MeasureSpec)
    limits: LimitSpec = Field(default_factory=LimitSpec)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse a mapping; raises SpecError, naming each field, its value and the remedy."""
        if not isinstance(value, dict):
            raise SpecError.of(
                "spec", value, "is not a mapping", "Write a mapping with the keys model, task and recipe."
            )
        yaml_reader.check(value)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise SpecError(list_problems(error, whole="spec", remedies=lambda _: _REMEDIES)) from error

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Parse a YAML text; raises SpecError, with the line if the YAML itself is invalid."""
        return cls.parse(yaml_reader.read(text))

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain data without default values; `parse` reads it."""
        data = self.model_dump(mode="json", exclude_defaults=True)
        return {"version": self.version, **data}

    def to_yaml(self) -> str:
        """The spec as YAML, which `from_yaml` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)

    @property
    def hash(self) -> str:
        """Equal for identical specs; the name does not count."""
        data = {key: value for key, value in self.to_dict().items() if key != "name"}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def techniques(self) -> list[str]:
        """Names of all techniques, including methods inside trainings, in order of first use."""
        names: dict[str, None] = {}
        for step in self.recipe:
            names[step.technique] = None
            for method in step.settings.get("methods") or []:
                names[StepSpec.model_validate(method).technique] = None
        return list(names)


_REMEDIES = {"value_error": "Write `- technique: {setting: value}`, one for each step."}
