"""The spec being edited on the Submit page: plain data that widgets show and change. Without Streamlit.

The draft is the single source of truth and changes only in widget callbacks. A browser that has not drawn the newest
form yet sends values of the previous one, and Streamlit treats each value of a removed widget as an edit. So every
redraw gets a new edition, and edits of earlier editions are dropped.
"""

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import yaml

from core.errors import Problem, SpecError
from core.spec.catalogue import Catalogue
from core.spec.labels import label
from core.spec.model import RunSpec, StepSpec
from core.spec.schema_validation import validate

_numbers = itertools.count(1)


def _next() -> int:
    return next(_numbers)


@dataclass(eq=False, kw_only=True)
class Edited:
    """The content of a form. `edition` is part of its widgets' keys."""

    edition: int = field(default_factory=_next)

    def redraw(self) -> None:
        """Give all widgets new keys; values that the old ones still send are dropped."""
        self.edition = _next()

    def edit(self, edition: int, act: Callable[..., None], *args: Any) -> None:
        """Call `act` for a widget of this edition; ignore widgets of earlier editions."""
        if edition == self.edition:
            act(*args)


@dataclass(eq=False)
class DraftPart(Edited):
    """A mapping in the spec with its own form: the model, the task, the limits."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Step(DraftPart):
    """A technique with its settings; `id` stays the same when the step is redrawn."""

    technique: str = ""
    id: int = field(default_factory=_next)
    added: bool = False  # by hand, so that its settings are shown

    @property
    def words(self) -> str:
        """The settings on one line: "updates 500, precision bfloat16", the methods of a training by name."""
        parts = []
        for name, value in self.values.items():
            if isinstance(value, list) and name == "methods":
                parts += [f"with {_name(item)}" for item in value]
            elif isinstance(value, bool):
                parts.append(f"{label(name)} {'yes' if value else 'no'}")
            elif isinstance(value, (int, float, str)):
                parts.append(f"{label(name)} {value}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Unread:
    """A text in the YAML field that is not a valid spec, and why."""

    text: str
    problems: list[Problem]


@dataclass(eq=False)
class Draft(Edited):
    """A run spec under construction. Its own edition covers the list of steps and the choice of a reference; each part
    has its own edition."""

    general: DraftPart  # name, seed and device
    model: DraftPart
    task: DraftPart
    steps: list[Step]
    calibration: DraftPart
    reference: DraftPart | None
    measure: DraftPart
    limits: DraftPart
    cloned_from: int | None = None
    about: str = ""  # the preset that it started from
    start: dict[str, Any] = field(default_factory=dict)  # the spec that it started from
    unread: Unread | None = None
    submitted: int | None = None  # the run that was queued last
    refused: str = ""  # why none was

    @classmethod
    def of(cls, spec: RunSpec, cloned_from: int | None = None, about: str = "") -> Self:
        """The draft whose `to_dict` gives this spec."""
        data = spec.to_dict()
        draft = cls(
            general=DraftPart({"name": spec.name, "seed": spec.seed, "device": spec.device}),
            model=DraftPart(data["model"]),
            task=DraftPart(data["task"]),
            steps=[Step(_plain(step.settings), step.technique) for step in spec.recipe],
            calibration=DraftPart(data.get("calibration", {})),
            reference=DraftPart(data["reference"]) if spec.reference else None,
            measure=DraftPart(data.get("measure", {})),
            limits=DraftPart(data.get("limits", {})),
            cloned_from=cloned_from,
            about=about,
        )
        draft.start = draft.to_dict()
        return draft

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain data, without empty values."""
        data = {**self.general.values, "model": self.model.values, "task": self.task.values}
        data["recipe"] = [{step.technique: step.values} for step in self.steps]
        data["calibration"] = self.calibration.values
        data["reference"] = self.reference and self.reference.values
        data |= {"measure": self.measure.values, "limits": self.limits.values}
        return {key: copy.deepcopy(value) for key, value in data.items() if value not in ("", None, {})}

    def to_yaml(self) -> str:
        """The spec as YAML, even if it is invalid; a text that could not be parsed is returned as typed."""
        if self.unread is not None:
            return self.unread.text
        try:
            return RunSpec.parse(self.to_dict()).to_yaml()
        except SpecError:
            return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)

    @property
    def is_misnamed(self) -> bool:
        """Whether model, task or recipe have changed but the name is still the original one."""
        now = self.to_dict()
        changed = any(now.get(part) != self.start.get(part) for part in ("model", "task", "recipe"))
        return changed and now.get("name") == self.start.get("name")

    def check(self, catalogue: Catalogue) -> tuple[RunSpec | None, list[Problem]]:
        """The spec if it is well-formed, and its validation errors."""
        try:
            spec = RunSpec.parse(self.to_dict())
        except SpecError as error:
            return None, error.problems
        named = {"model": self.model, "task": self.task, "reference": self.reference}
        places = {field: part.values for field, part in named.items() if part is not None}
        places |= {f"calibration.sources[{i}]": source for i, source in enumerate(self._calibration_sources())}
        problems = [_unnamed(field) for field, values in places.items() if _lacks_name(values)]
        try:
            validate(spec, catalogue)
        except SpecError as error:
            problems += error.problems
        return spec, problems

    def _calibration_sources(self) -> list[dict[str, Any]]:
        sources = self.calibration.values.get("sources", [])
        return [source for source in sources if isinstance(source, dict)] if isinstance(sources, list) else []

    def add(self, technique: str, settings: dict[str, Any]) -> None:
        """Append a technique to the recipe."""
        self.steps.append(Step(settings, technique, added=True))
        self._changed()

    def remove(self, step: Step) -> None:
        """Remove a step."""
        self.steps.remove(step)
        self._changed()

    def move(self, step: Step, by: int) -> None:
        """Move a step up (-1) or down (1)."""
        index = self.steps.index(step)
        self.steps.insert(index + by, self.steps.pop(index))
        self._changed()

    def duplicate(self, step: Step) -> None:
        """Insert a copy of a step after it."""
        self.steps.insert(self.steps.index(step) + 1, Step(copy.deepcopy(step.values), step.technique))
        self._changed()

    def refer(self, reference: dict[str, Any] | None) -> None:
        """Set the reference that stages are compared with; None chooses it automatically."""
        self.reference = None if reference is None else DraftPart(reference)
        self._changed()

    def _changed(self) -> None:
        self.unread = None
        self.redraw()


def _lacks_name(source: Mapping[str, Any]) -> bool:
    return str(source.get("source", "")).endswith(":")


def _unnamed(field: str) -> Problem:
    return Problem(f"{field}.source", "", "has no name yet", "Enter one.")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with methods as mappings instead of bare names, so that a form can edit them."""
    plain = copy.deepcopy(dict(settings))
    methods = plain.get("methods")
    if isinstance(methods, list):
        plain["methods"] = [_method(item) for item in methods]
    return plain


def _name(item: Any) -> str:
    return str(next(iter(item), "")) if isinstance(item, dict) else str(item)


def _method(item: Any) -> Any:
    if not isinstance(item, (str, dict)):
        return item
    step = StepSpec.model_validate(item)
    return {step.technique: dict(step.settings)}


def make_dense_companion(spec: RunSpec, catalogue: Catalogue) -> dict[str, Any] | None:
    """The reference to offer if no stage of the recipe is trained and uncompressed: the same model, trained densely.

    None if the spec names a reference, its model is already trained, or it trains before compressing or never.
    """
    if spec.reference is not None or not spec.model.source.startswith("builtin:") or spec.model.recipe:
        return None
    compressed, trainings = False, []
    for step in spec.recipe:
        methods = [StepSpec.model_validate(method).technique for method in step.settings.get("methods") or []]
        compressed |= any(_compresses(name, catalogue) for name in (step.technique, *methods))
        if step.technique == "train":
            if not compressed:
                return None
            trainings.append({"train": {key: value for key, value in step.settings.items() if key != "methods"}})
    model = spec.model.model_dump(mode="json", exclude_defaults=True)
    return {**model, "recipe": trainings} if trainings else None


def _compresses(technique: str, catalogue: Catalogue) -> bool:
    return bool(catalogue.techniques.get(technique, {}).get("compresses", True))
