"""The spec that the submit page is working on: plain data that its widgets read and write. No st."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from core.catalogue import Catalogue
from core.errors import Problem, SpecError
from core.spec import RunSpec, StepSpec
from core.validation import validate

_numbers = itertools.count(1)


@dataclass
class Step:
    """A technique with its settings; `id` stays when the step moves."""

    technique: str
    settings: dict[str, Any] = field(default_factory=dict)
    id: int = field(default_factory=lambda: next(_numbers))

    @property
    def words(self) -> str:
        """The settings in a line: "bits 8, symmetric no", the methods of a training by name."""
        parts = []
        for name, value in self.settings.items():
            if isinstance(value, list) and name == "methods":
                parts += [f"with {_name(item)}" for item in value]
            elif isinstance(value, bool):
                parts.append(f"{name.replace('_', ' ')} {'yes' if value else 'no'}")
            elif isinstance(value, (int, float, str)):
                parts.append(f"{name.replace('_', ' ')} {value}")
        return ", ".join(parts)


@dataclass
class Draft:
    """A run spec under construction. `generation` grows whenever widgets must be drawn anew from it."""

    name: str = ""
    model: dict[str, Any] = field(default_factory=lambda: {"source": "builtin:vit"})
    task: dict[str, Any] = field(default_factory=lambda: {"source": "builtin:digits"})
    seed: int = 0
    device: str = "any"
    steps: list[Step] = field(default_factory=list)
    reference: dict[str, Any] | None = None
    measure: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    cloned_from: int | None = None
    generation: int = 0

    @classmethod
    def of(cls, spec: RunSpec, cloned_from: int | None = None) -> Self:
        """The draft that `to_dict` turns into this spec again."""
        data = {key: value for key, value in spec.to_dict().items() if key not in ("version", "recipe")}
        steps = [Step(step.technique, _plain(step.settings)) for step in spec.recipe]
        return cls(**data, steps=steps, cloned_from=cloned_from, generation=next(_numbers))

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain data, without what is empty."""
        data = {key: getattr(self, key) for key in ("name", "model", "task", "seed", "device")}
        data["recipe"] = [{step.technique: step.settings} for step in self.steps]
        data |= {key: getattr(self, key) for key in ("reference", "measure", "limits")}
        return {key: copy.deepcopy(value) for key, value in data.items() if value not in ("", None, {})}

    def check(self, catalogue: Catalogue) -> tuple[RunSpec | None, list[Problem]]:
        """The spec if it has the right shape, and all that is wrong with it."""
        try:
            spec = RunSpec.parse(self.to_dict())
        except SpecError as error:
            return None, error.problems
        problems = [_unnamed(field) for field in ("model", "task", "reference") if _lacks_name(getattr(self, field))]
        try:
            validate(spec, catalogue)
        except SpecError as error:
            problems += error.problems
        return spec, problems

    def redraw(self) -> None:
        """Make every widget take its value from the draft again.

        The settings move into new dicts: what a widget of before still writes, because its browser has not yet
        drawn the new ones, reaches the draft no more.
        """
        for name in ("model", "task", "reference", "measure", "limits"):
            setattr(self, name, copy.deepcopy(getattr(self, name)))
        self.steps = [replace(step, settings=copy.deepcopy(step.settings)) for step in self.steps]
        self.generation = next(_numbers)

    def add(self, technique: str, settings: dict[str, Any]) -> None:
        """Put a technique at the recipe's end."""
        self.steps.append(Step(technique, settings))

    def remove(self, index: int) -> None:
        """Take a step out."""
        del self.steps[index]
        self.redraw()

    def move(self, index: int, by: int) -> None:
        """Move a step up (-1) or down (1)."""
        self.steps.insert(index + by, self.steps.pop(index))
        self.redraw()

    def duplicate(self, index: int) -> None:
        """Put a copy of a step behind it."""
        step = self.steps[index]
        self.steps.insert(index + 1, Step(step.technique, copy.deepcopy(step.settings)))
        self.redraw()


def _lacks_name(source: Mapping[str, Any] | None) -> bool:
    return source is not None and str(source.get("source", "")).endswith(":")


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
