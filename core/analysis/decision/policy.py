"""A policy: the limits that a model must meet to be shipped, written in YAML.

Sizes and times need a unit. A score is in the task's unit, which may be written (95 %); a loss is in points if the
score is in percent. Ratios and losses are relative to the run's reference, those in `champion` to a device's current
champion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator

from core.analysis.decision.limits import Limit, Sense
from core.analysis.decision.units import BYTES, COUNTS, MILLISECONDS, NATS, PERCENT, Amount, read, scaled
from core.errors import Problem, SpecError
from core.quantities import POLICY_KEYS, Quantity, Unit
from core.spec import yaml_reader
from core.spec.pydantic_errors import list_problems


def _amount(value: Any) -> Any:
    return None if value is None else read(value)


def _bytes(value: Any) -> Any:
    return None if value is None else scaled(value, BYTES)


def _milliseconds(value: Any) -> Any:
    return None if value is None else scaled(value, MILLISECONDS)


def _count(value: Any) -> Any:
    return None if value is None else scaled(value, COUNTS)


def _nats(value: Any) -> Any:
    return None if value is None else scaled(value, NATS, may_be_zero=True)


def _percent(value: Any) -> Any:
    return None if value is None else scaled(value, PERCENT, may_be_zero=True)


Bytes = Annotated[float | None, BeforeValidator(_bytes)]
Milliseconds = Annotated[float | None, BeforeValidator(_milliseconds)]
BOUNDS: dict[Unit, Any] = {  # how a bound on a quantity in a unit is written
    Unit.BYTES: Bytes,
    Unit.COSINE: Annotated[float | None, Field(ge=-1, le=1)],
    Unit.COUNT: Annotated[float | None, BeforeValidator(_count)],
    Unit.NATS: Annotated[float | None, BeforeValidator(_nats)],
    Unit.PERCENT: Annotated[float | None, BeforeValidator(_percent), Field(le=100)],
    Unit.NUMBER: Annotated[float | None, Field(ge=0, allow_inf_nan=False)],
}
ScoreAmount = Annotated[Amount | None, BeforeValidator(_amount)]
Ratio = Annotated[float | None, Field(gt=0, allow_inf_nan=False)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def limits(cls) -> list[str]:
        """Names of the fields that are limits."""
        return [name for name in cls.model_fields if name.endswith(("at_most", "at_least"))]

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        limits = self.limits()
        if all(getattr(self, name) is None for name in limits):
            raise SpecError.of("", self.model_dump(exclude_none=True), "limits nothing", f"Add {' or '.join(limits)}.")
        return self


class SizeRule(_Rule):
    """Bytes of the packed weights, and their ratio to the reference's."""

    at_most: Bytes = None
    ratio_at_most: Ratio = None


class RatioRule(_Rule):
    """The ratio to the champion's size or latency."""

    ratio_at_most: Ratio = None


class LossRule(_Rule):
    """The loss of score relative to the champion."""

    loss_at_most: ScoreAmount = None
    significant_only: bool = False  # a larger loss counts only where the paired test gives p < 0.05

    @model_validator(mode="after")
    def _loss(self) -> Self:
        if self.significant_only and self.loss_at_most is None:
            remedy = "Add loss_at_most, which it modifies, or remove it."
            raise SpecError.of("significant_only", True, "has no loss_at_most to test", remedy)
        if self.loss_at_most is not None and self.loss_at_most.value < 0:
            remedy = "Write the largest acceptable loss, or 0."
            raise SpecError.of("loss_at_most", self.loss_at_most.value, "must be at least 0", remedy)
        return self


class ScoreRule(LossRule):
    """The score on the test split, and its loss relative to the reference."""

    at_least: ScoreAmount = None  # where more is better
    at_most: ScoreAmount = None  # where less is better


class _DeviceRule(_Rule):
    """A rule for one device, or for all that match its conditions."""

    hardware: str | None = None
    runtime: str | None = None
    threads: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=1)
    length: int | None = Field(None, ge=1)
    phase: Literal["forward", "prefill", "decode"] | None = None

    def conditions(self) -> dict[str, str | int]:
        """The given conditions, as columns of `latency`."""
        return self.model_dump(exclude_none=True, exclude=set(self.limits()))


class LatencyRule(_DeviceRule):
    """The median latency of a call, and its ratio to the reference's, under the given conditions.

    Every measurement that matches the conditions must be within the limits.
    """

    at_most: Milliseconds = None
    ratio_at_most: Ratio = None
    dtype: str | None = None


class ChampionRule(_DeviceRule):
    """Limits relative to the champion of the device that matches the conditions."""

    size: RatioRule | None = None
    score: LossRule | None = None
    latency: RatioRule | None = None

    @classmethod
    def limits(cls) -> list[str]:
        """Names of the fields that are limits."""
        return ["size", "score", "latency"]


def _bound_rule(quantity: Quantity) -> Any:
    """The rule of a quantity with only a bound."""
    field = "at_most" if quantity.better == "less" else "at_least"
    bound: Any = {field: (BOUNDS[quantity.unit], None)}
    return create_model(f"{quantity.name}_rule", __base__=_Rule, __doc__=quantity.meaning, **bound)


@dataclass(frozen=True)
class Clause:
    """One limit of a policy, with its field and conditions."""

    field: str  # "latency.at_most"
    limit: Limit
    unit: str = ""  # that of a score's limit, where it is written
    conditions: tuple[tuple[str, str | int], ...] = ()
    champion: int | None = None  # against which of the policy's champions; None: the run's reference


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class _PrincipalRules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: SizeRule | None = None
    score: ScoreRule | None = None
    latency: Annotated[list[LatencyRule], BeforeValidator(_listed)] = Field(default_factory=list, max_length=20)


_BOUND_RULES: Any = {key: (_bound_rule(quantity) | None, None) for key, quantity in POLICY_KEYS.items()}
_Rules: Any = create_model("_Rules", __base__=_PrincipalRules, **_BOUND_RULES)


class Policy(_Rules):
    """The limits for a stage; every limit is optional, but there is at least one.

    Beside the rules below and the principal ones there is one for each of `core.quantities.POLICY_KEYS`.
    """

    champion: Annotated[list[ChampionRule], BeforeValidator(_listed)] = Field(default_factory=list, max_length=20)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The policy in a YAML text; raises SpecError that names each field, its value and the remedy."""
        try:
            value = yaml_reader.read(text)
            yaml_reader.check(value)
        except SpecError as error:
            raise error.moved("spec", "policy") from error
        keys = ", ".join(cls.model_fields)
        if not isinstance(value, dict) or not value:
            raise SpecError.of("policy", value, "is not a limit", f"Start with one of the keys {keys}.")
        if empty := list(_empty(value, "")):
            raise SpecError(empty)
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            found = SpecError(list_problems(error, whole="policy", remedies=_remedies))
            for name in ("latency", "champion"):
                found = found.moved(f"{name}[0]", name) if isinstance(value.get(name), dict) else found
            raise found from error

    def clauses(self) -> Iterator[Clause]:
        """Every limit, in the order of the fields above."""
        if self.size:
            yield from _clauses("size", {"at_most": "size_bytes", "ratio_at_most": "size_ratio"}, self.size)
        if self.score:
            yield from _score_clauses("score", self.score)
        for index, rule in enumerate(self.latency):
            name = _place("latency", index, self.latency)
            yield from _clauses(name, {"at_most": "p50_ms", "ratio_at_most": "latency_ratio"}, rule)
        for key, quantity in POLICY_KEYS.items():
            if rule := getattr(self, key):
                yield from _clauses(key, dict.fromkeys(rule.limits(), quantity.name), rule)
        for index, (place, champion) in enumerate(self.champions()):
            for clause in _champion_clauses(place, champion):
                yield replace(clause, champion=index)

    def champions(self) -> Iterator[tuple[str, ChampionRule]]:
        """Rules relative to champions, each with its field in the policy."""
        for index, rule in enumerate(self.champion):
            yield _place("champion", index, self.champion), rule


def _remedies(place: Sequence[Any]) -> dict[str, str]:
    """Remedies for values of the wrong type in the policy."""
    if place[:1] == ("champion",):
        return {
            "model_type": "Write a mapping, such as {ratio_at_most: 1}.",
            "list_type": "Write a mapping, such as {batch: 1, size: {ratio_at_most: 1}}, or a list of them.",
        }
    return {
        "model_type": "Write a mapping, such as {at_most: 1 MB}.",
        "list_type": "Write a mapping, such as {at_most: 2 ms, batch: 1}, or a list of them.",
    }


def _place(name: str, index: int, rules: Sequence[_Rule]) -> str:
    return name if len(rules) == 1 else f"{name}[{index}]"


def _empty(value: Any, field: str) -> Iterator[Problem]:
    """Keys without a value: a limit deleted by mistake would let everything pass."""
    if value in (None, [], {}):
        yield Problem(field, value, "is empty", "Write a limit, or remove the key.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _empty(inner, f"{field}.{key}" if field else str(key))


def _clauses(name: str, quantities: dict[str, str], rule: _Rule) -> Iterator[Clause]:
    named = tuple(rule.conditions().items()) if isinstance(rule, LatencyRule) else ()
    for field, quantity in quantities.items():
        bound = getattr(rule, field)
        if bound is not None:
            sense: Sense = "at least" if field.endswith("at_least") else "at most"
            yield Clause(f"{name}.{field}", Limit(quantity, sense, bound), conditions=named)


def _score_clauses(name: str, rule: LossRule) -> Iterator[Clause]:
    if isinstance(rule, ScoreRule) and rule.at_least:
        yield Clause(f"{name}.at_least", Limit("score", "at least", rule.at_least.value), rule.at_least.unit)
    if isinstance(rule, ScoreRule) and rule.at_most:
        yield Clause(f"{name}.at_most", Limit("score", "at most", rule.at_most.value), rule.at_most.unit)
    if rule.loss_at_most:
        limit = Limit("score_loss", "at most", rule.loss_at_most.value, rule.significant_only)
        yield Clause(f"{name}.loss_at_most", limit, rule.loss_at_most.unit)


def _champion_clauses(name: str, rule: ChampionRule) -> Iterator[Clause]:
    if rule.size:
        yield from _clauses(f"{name}.size", {"ratio_at_most": "size_ratio"}, rule.size)
    if rule.score:
        yield from _score_clauses(f"{name}.score", rule.score)
    if rule.latency:
        yield from _clauses(f"{name}.latency", {"ratio_at_most": "latency_ratio"}, rule.latency)
