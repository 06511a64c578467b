"""The measured quantities of a stage, each declared once. Loads neither torch nor the store.

SQL columns, chart axes, tables, terminal output, `--json`, exports, limits and policies derive from `QUANTITIES`. A new
quantity is its declaration here, the code that measures it, a field of its record (`core/measured.py`), and a column
(`core/store/models/stages.py`) with its migration.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Any, Literal

from core.scores import PERPLEXITY


def in_sentence(title: str) -> str:
    """A title in lower case, unless it starts with an acronym."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]


class Unit(Enum):
    """The unit in which a quantity is stored; `symbol` is written after a number."""

    BYTES = "bytes"
    MILLISECONDS = "ms"
    NATS = "nats"
    PERCENT = "%"
    RATIO = "ratio"  # of two values in one unit
    COSINE = "cosine"  # of an angle: -1 to 1
    COUNT = "count"
    NUMBER = "number"
    SCORE = "score"  # that of the task's score

    @property
    def symbol(self) -> str:
        """The symbol after a number in exports, JSON and policies; empty for plain numbers."""
        return self.value if self in (Unit.BYTES, Unit.MILLISECONDS, Unit.NATS, Unit.PERCENT) else ""


class Origin(Enum):
    """Where the store keeps a quantity."""

    STAGE = auto()  # a column of `stage`
    SCORES = auto()  # one of a stage's further scores, by name
    COMPARISON = auto()  # an attribute of `run_stage`: against the run's reference
    LATENCY = auto()  # from `latency`, under chosen conditions
    SIZES = auto()  # from a stage's size and its reference's


class Shown(Flag):
    """Where a quantity is shown. Exports and `--json` contain all that apply to their rows."""

    AXIS = auto()  # an axis of Trade-offs
    LISTED = auto()  # the table below that chart
    COMPUTE = auto()  # the run page's table of compute and memory
    FIDELITY = auto()  # the run page's table of fidelity
    COMPARE = auto()  # the summary of Compare
    TERMINAL = auto()  # the table that commands print


NOWHERE = Shown(0)


@dataclass(frozen=True)
class Quantity:
    """A measured quantity of a stage."""

    name: str  # of the column, and in records, JSON and limits
    title: str
    unit: Unit
    better: Literal["less", "more"]  # a score's direction is its task's
    origin: Origin
    shown: Shown
    head: str = ""  # the title where there is little room
    export: str = ""  # the title in exported tables
    meaning: str = ""  # a sentence for tooltips, and the documentation of its policy rule
    policy: str = ""  # its key in a policy, where all that is asked is a bound
    limit: str = ""  # its limit's name in the address of Trade-offs
    score: str = ""  # the further score that it is
    has_interval: bool = False  # `<name>_low` and `<name>_high` hold its 95 % interval
    log: bool = True  # whether charts start with a logarithmic axis

    @property
    def short(self) -> str:
        """The title for narrow places."""
        return self.head or self.title

    @property
    def columns(self) -> tuple[str, ...]:
        """Its column, and those of its interval's ends if it has one."""
        return (self.name, f"{self.name}_low", f"{self.name}_high") if self.has_interval else (self.name,)

    @property
    def exported(self) -> dict[str, str]:
        """Headers of its columns in an exported table, with units, by column."""
        unit = f" [{self.unit.symbol}]" if self.unit.symbol else ""
        ends = ("", " low", " high")
        return {
            column: f"{self.export or in_sentence(self.title)}{end}{unit}"
            for column, end in zip(self.columns, ends, strict=False)
        }

    def values(self, stage: Any, comparison: Any) -> dict[str, float | None]:
        """Its value and its interval's ends by column; None: not measured.

        `stage` has the columns of `stage`, `comparison` those of `run_stage` (None: no reference).
        """
        if self.origin is Origin.SCORES:
            return {self.name: stage.scores.get(self.score)}
        row = stage if self.origin is Origin.STAGE else comparison
        return {column: getattr(row, column, None) for column in self.columns}


KL = "Mean Kullback-Leibler divergence of the stage's predictions from its reference's, KL(reference ‖ stage), in nats."
_EVERYWHERE = Shown.AXIS | Shown.LISTED | Shown.COMPARE | Shown.TERMINAL

SIZE = Quantity(
    "size_bytes", "Size", Unit.BYTES, "less", Origin.STAGE, _EVERYWHERE, limit="most_mb",
    meaning="Bytes of the packed weights.",
)  # fmt: skip
SCORE = Quantity(
    "score", "Score", Unit.SCORE, "more", Origin.STAGE, _EVERYWHERE, has_interval=True, log=False,
    meaning="The task's principal score on the test split.",
)  # fmt: skip
MEDIAN = Quantity(
    "p50_ms", "Latency (median)", Unit.MILLISECONDS, "less", Origin.LATENCY, _EVERYWHERE, head="Latency p50",
    export="latency p50", limit="most_ms", meaning="Median latency of a call.",
)  # fmt: skip

QUANTITIES: tuple[Quantity, ...] = (
    SCORE,
    SIZE,
    MEDIAN,
    Quantity(
        "p95_ms", "Latency (95th percentile)", Unit.MILLISECONDS, "less", Origin.LATENCY, Shown.AXIS, head="p95",
        export="latency p95", meaning="The latency that 95 % of the calls do not exceed.",
    ),
    Quantity(
        "speed_up", "Speed-up", Unit.RATIO, "more", Origin.LATENCY, Shown.AXIS | Shown.LISTED, has_interval=True,
        meaning="The reference's latency divided by the stage's, timed alternately.",
    ),
    Quantity(
        "compression_ratio", "Compression", Unit.RATIO, "more", Origin.SIZES, Shown.AXIS | Shown.LISTED,
        export="compression ratio", meaning="The reference's size divided by the stage's.",
    ),
    Quantity(
        "macs", "Multiply-accumulates", Unit.COUNT, "less", Origin.STAGE, _EVERYWHERE | Shown.COMPUTE, head="MACs",
        policy="macs", meaning="Multiply-accumulates of one forward pass, per example or per token.",
    ),
    Quantity(
        "parameters", "Parameters", Unit.COUNT, "less", Origin.STAGE, Shown.AXIS | Shown.COMPUTE,
        meaning="Number of parameters, including zeros.",
    ),
    Quantity(
        "nonzeros", "Nonzero parameters", Unit.COUNT, "less", Origin.STAGE,
        Shown.AXIS | Shown.COMPUTE | Shown.TERMINAL, head="Nonzeros", meaning="Number of nonzero parameters.",
    ),
    Quantity(
        "peak_memory_bytes", "Peak memory", Unit.BYTES, "less", Origin.STAGE,
        Shown.AXIS | Shown.LISTED | Shown.COMPUTE | Shown.COMPARE, policy="memory",
        meaning="Peak memory of a fresh process that only loads and runs the model.",
    ),
    Quantity(
        "perplexity", "Perplexity", Unit.NUMBER, "less", Origin.SCORES, Shown.AXIS | Shown.COMPARE | Shown.TERMINAL,
        score=PERPLEXITY.name, policy="perplexity",
        meaning="Perplexity per token: exp of the mean cross entropy. It depends on the tokenizer.",
    ),
    Quantity(
        "kl", "KL to the reference", Unit.NATS, "less", Origin.COMPARISON, _EVERYWHERE | Shown.FIDELITY, head="KL",
        policy="kl", limit="most_kl", has_interval=True, meaning=KL,
    ),
    Quantity(
        "kl_p99", "KL to the reference (99 % quantile)", Unit.NATS, "less", Origin.COMPARISON,
        Shown.AXIS | Shown.FIDELITY, head="KL 99 %", policy="kl_p99",
        meaning="99 % quantile of the KL to the reference over the predictions, in nats.",
    ),
    Quantity(
        "kl_max", "KL to the reference (maximum)", Unit.NATS, "less", Origin.COMPARISON, Shown.FIDELITY, head="KL max.",
        policy="kl_max", meaning="Largest KL to the reference of any prediction, in nats.",
    ),
    Quantity(
        "top1_agreement", "Top-1 agreement", Unit.PERCENT, "more", Origin.COMPARISON,
        Shown.AXIS | Shown.FIDELITY | Shown.COMPARE, head="Top-1", policy="top1_agreement", log=False,
        meaning="Share of predictions whose most likely class or token is the reference's.",
    ),
    Quantity(
        "flips", "Flips", Unit.PERCENT, "less", Origin.COMPARISON,
        Shown.AXIS | Shown.FIDELITY | Shown.COMPARE, policy="flips", log=False,
        meaning="Share of predictions that are right where the reference is wrong, or the reverse.",
    ),
    Quantity(
        "right_to_wrong", "Right → wrong", Unit.PERCENT, "less", Origin.COMPARISON, Shown.FIDELITY,
        policy="right_to_wrong", meaning="Share of predictions that are wrong where the reference is right.",
    ),
    Quantity(
        "wrong_to_right", "Wrong → right", Unit.PERCENT, "more", Origin.COMPARISON, Shown.FIDELITY,
        meaning="Share of predictions that are right where the reference is wrong.",
    ),
    Quantity(
        "cosine", "Cosine with the reference", Unit.COSINE, "more", Origin.COMPARISON, _EVERYWHERE | Shown.FIDELITY,
        head="Cosine", policy="cosine", has_interval=True, log=False,
        meaning="Mean cosine of the test texts' embeddings with their reference's.",
    ),
    Quantity(
        "cosine_min", "Cosine with the reference (minimum)", Unit.COSINE, "more", Origin.COMPARISON,
        Shown.AXIS | Shown.FIDELITY, head="Cosine min.", policy="cosine_min", log=False,
        meaning="Smallest cosine of any test text's embedding with its reference's.",
    ),
    Quantity(
        "neighbours_kept", "Neighbours kept at 10", Unit.PERCENT, "more", Origin.COMPARISON,
        Shown.AXIS | Shown.FIDELITY | Shown.COMPARE, head="Neighbours", policy="neighbours_kept", has_interval=True,
        log=False,
        meaning="Share of each test text's 10 nearest neighbours in the reference that are among its 10 nearest here.",
    ),
    Quantity(
        "nominal_bits", "Nominal bits", Unit.NUMBER, "less", Origin.STAGE, NOWHERE,
        meaning="Nominal bits per weight, as the technique claims.",
    ),
    Quantity(
        "nominal_sparsity", "Nominal sparsity", Unit.NUMBER, "more", Origin.STAGE, NOWHERE,
        meaning="Nominal share of zeros, as the technique claims.",
    ),
    Quantity(
        "reload_max_error", "Reload error", Unit.NUMBER, "less", Origin.STAGE, NOWHERE, policy="reload_error",
        meaning="Largest difference of outputs after loading the artifact in a fresh process.",
    ),
)  # fmt: skip
BY_NAME: Mapping[str, Quantity] = {quantity.name: quantity for quantity in QUANTITIES}
AXES = tuple(quantity for quantity in QUANTITIES if Shown.AXIS in quantity.shown)
POLICY_KEYS: Mapping[str, Quantity] = {quantity.policy: quantity for quantity in QUANTITIES if quantity.policy}


def shown_in(place: Shown) -> tuple[Quantity, ...]:
    """The quantities shown in a place, in order."""
    return tuple(quantity for quantity in QUANTITIES if place in quantity.shown)


def kept_in(*origins: Origin) -> tuple[Quantity, ...]:
    """The quantities that the store has in these places."""
    return tuple(quantity for quantity in QUANTITIES if quantity.origin in origins)


def measured_values(
    stage: Any, comparison: Any, quantities: Iterable[Quantity] | None = None
) -> dict[str, float | None]:
    """Every quantity of a stage that has no conditions, with its interval's ends; None: not measured."""
    asked = kept_in(Origin.STAGE, Origin.SCORES, Origin.COMPARISON) if quantities is None else quantities
    return {column: value for quantity in asked for column, value in quantity.values(stage, comparison).items()}
