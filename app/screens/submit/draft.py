"""The spec that the submit page is working on: plain data that its widgets show and edit. No st.

The draft is the only truth; it is written in widgets' callbacks alone. A browser that has not yet drawn the newest
form sends the values of the one before, and Streamlit takes each value of a widget that is gone for an edit. So
everything that is drawn anew gets another edition, and an edit of an earlier edition is dropped.
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
    """What a form shows. `edition` is part of its widgets' keys."""

    edition: int = field(default_factory=_next)

    def redraw(self) -> None:
        """Have all widgets drawn anew; what those of before still send is dropped."""
        self.edition = _next()

    def edit(self, edition: int, act: Callable[..., None], *args: Any) -> None:
        """Do `act` for a widget of this edition; nothing for one of an earlier edition."""
        if edition == self.edition:
            act(*args)


@dataclass(eq=False)
class DraftPart(Edited):
    """A mapping in the spec with a form of its own: the model, the task, the limits."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Step(DraftPart):
    """A technique with its settings; `id` stays when the step is drawn anew."""

    technique: str = ""
    id: int = field(default_factory=_next)
    added: bool = False  # by hand, so that its settings are shown

    @property
    def words(self) -> str:
        """The settings in a line: "updates 500, precision bfloat16", the methods of a training by name."""
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
    """A text in the YAML field that is no spec, and why."""

    text: str
    problems: list[Problem]


@dataclass(eq=False)
class Draft(Edited):
    """A run spec under construction. Its own edition is that of the list of steps and of the choice of a
    reference; each part has one of its own."""

    general: DraftPart  # name, seed and device
    model: DraftPart
    task: DraftPart
    steps: list[Step]
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
        """The draft that `to_dict` turns into this spec again."""
        data = spec.to_dict()
        draft = cls(
            general=DraftPart({"name": spec.name, "seed": spec.seed, "device": spec.device}),
            model=DraftPart(data["model"]),
            task=DraftPart(data["task"]),
            steps=[Step(_plain(step.settings), step.technique) for step in spec.recipe],
            reference=DraftPart(data["reference"]) if spec.reference else None,
            measure=DraftPart(data.get("measure", {})),
            limits=DraftPart(data.get("limits", {})),
            cloned_from=cloned_from,
            about=about,
        )
        draft.start = draft.to_dict()
        return draft

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain data, without what is empty."""
        data = {**self.general.values, "model": self.model.values, "task": self.task.values}
        data["recipe"] = [{step.technique: step.values} for step in self.steps]
        data["reference"] = self.reference and self.reference.values
        data |= {"measure": self.measure.values, "limits": self.limits.values}
        return {key: copy.deepcopy(value) for key, value in data.items() if value not in ("", None, {})}

    def to_yaml(self) -> str:
        """The spec as YAML, also while it is none yet; a text that could not be read as it was typed."""
        if self.unread is not None:
            return self.unread.text
        try:
            return RunSpec.parse(self.to_dict()).to_yaml()
        except SpecError:
            return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)

    @property
    def is_misnamed(self) -> bool:
        """Whether another model, task or recipe goes by the name of the one that the draft started from."""
        now = self.to_dict()
        changed = any(now.get(part) != self.start.get(part) for part in ("model", "task", "recipe"))
        return changed and now.get("name") == self.start.get("name")

    def check(self, catalogue: Catalogue) -> tuple[RunSpec | None, list[Problem]]:
        """The spec if it has the right shape, and all that is wrong with it."""
        try:
            spec = RunSpec.parse(self.to_dict())
        except SpecError as error:
            return None, error.problems
        named = {"model": self.model, "task": self.task, "reference": self.reference}
        problems = [_unnamed(field) for field, part in named.items() if part is not None and _lacks_name(part.values)]
        try:
            validate(spec, catalogue)
        except SpecError as error:
            problems += error.problems
        return spec, problems

    def add(self, technique: str, settings: dict[str, Any]) -> None:
        """Put a technique at the recipe's end."""
        self.steps.append(Step(settings, technique, added=True))
        self._changed()

    def remove(self, step: Step) -> None:
        """Take a step out."""
        self.steps.remove(step)
        self._changed()

    def move(self, step: Step, by: int) -> None:
        """Move a step up (-1) or down (1)."""
        index = self.steps.index(step)
        self.steps.insert(index + by, self.steps.pop(index))
        self._changed()

    def duplicate(self, step: Step) -> None:
        """Put a copy of a step behind it."""
        self.steps.insert(self.steps.index(step) + 1, Step(copy.deepcopy(step.values), step.technique))
        self._changed()

    def refer(self, reference: dict[str, Any] | None) -> None:
        """Name the model that the stages are compared with, or leave it to the pipeline."""
        self.reference = None if reference is None else DraftPart(reference)
        self._changed()

    def _changed(self) -> None:
        self.unread = None
        self.redraw()


def _lacks_name(source: Mapping[str, Any]) -> bool:
    return str(source.get("source", "")).endswith(":")


def _unnamed(field: str) -> Problem:
    return Problem(f"{field}.source", "", "is not named yet", "Say which one.")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with bare names of methods written as mappings, so that a form can write into them."""
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


def dense_companion(spec: RunSpec, catalogue: Catalogue) -> dict[str, Any] | None:
    """The reference to offer where no stage of the recipe is trained and uncompressed: its model, trained plainly.

    None where the spec names a reference, its model comes trained, it trains before it compresses, or never.
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
