"""Text of quantities on every page: one format and one unit each."""

import datetime as dt
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from core.measured import SIGNIFICANT
from core.quantities import Quantity, Unit
from core.scores import decimals, difference_unit

NOTHING = "–"
SHARES = (  # stored as 0..1
    "sparsity",
    "relative_error",
    "relative error",
    "output_error",
    "nearest_output_error",
    "kept",
)
PERCENT_DECIMALS = 2  # of shares that are not scores
COSINE_DECIMALS = 5
_SIZES = ("B", "kB", "MB", "GB", "TB")
_COUNTS = ("", " k", " M", " G", " T")


_MARKUP = re.compile(r"[\\`*\[\]<>$~#|&]|(?<!\w)_|_(?!\w)|:(?=//|material/)|(?<=\bwww)\.")
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """User text (a name, a tag, a message) escaped for Markdown: shown literally, on one line.

    Otherwise a name could put links, images from other hosts or formulas on a colleague's page, or reverse the text
    direction of the rest of the line.
    """
    return _MARKUP.sub(r"\\\g<0>", " ".join(_TURNING.sub("", text).split()))


def _significant(value: float, digits: int = 3) -> str:
    """`value` with about `digits` significant digits and no exponent: 1.24, 12.4, 124, 1240."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".rpartition("e")[2])  # after rounding: 0.9999 counts as 1.00
    return f"{value:.{min(max(digits - 1 - exponent, 0), 8)}f}"


def _scaled(value: float, units: tuple[str, ...], base: float = 1000.0) -> tuple[float, str]:
    for unit in units[:-1]:
        if abs(value) < base * 0.9995:
            return value, unit
        value /= base
    return value, units[-1]


def size(n_bytes: float | None) -> str:
    """Bytes in decimal units: "1.24 MB"."""
    if n_bytes is None:
        return NOTHING
    value, unit = _scaled(float(n_bytes), _SIZES)
    return f"{round(value)} B" if unit == "B" else f"{_significant(value)} {unit}"


def count(number: float | None) -> str:
    """A count: "853", "12.4 k", "1.24 M"."""
    if number is None:
        return NOTHING
    value, unit = _scaled(float(number), _COUNTS)
    return f"{value:g}" if unit == "" else f"{_significant(value)}{unit}"


def plural(number: int, noun: str) -> str:
    """A count with its noun: "1 run", "12.4 k runs"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def milliseconds(ms: float | None) -> str:
    """A latency: "0.412 ms", "12.4 ms", "1.24 s"."""
    if ms is None:
        return NOTHING
    return f"{_significant(ms)} ms" if ms < 999.5 else f"{_significant(ms / 1000)} s"


def energy(mj: float | None) -> str:
    """Energy: "1.24 mJ", "1.24 J"."""
    if mj is None:
        return NOTHING
    return f"{_significant(mj)} mJ" if mj < 999.5 else f"{_significant(mj / 1000)} J"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one as a percentage: 0.9531 is "95.3 %"."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def ratio(value: float | None) -> str:
    """A factor: "3.98×"."""
    return NOTHING if value is None else f"{_significant(value)}×"


def size_change(n_bytes: float, reference: float | None) -> str:
    """A size relative to its reference: "3.98× smaller", "1.06× larger"; empty if they are equal or unknown."""
    if not reference or not n_bytes:
        return ""
    times = reference / n_bytes
    if 0.995 < times < 1.005:
        return ""
    return f"{ratio(times)} smaller" if times > 1 else f"{ratio(1 / times)} larger"


def time_change(ratio_of_times: float) -> str:
    """A relative latency as text: "2.50× faster", "1.30× slower", "as fast as the reference"."""
    if 0.995 < ratio_of_times < 1.005:
        return "as fast as the reference"
    return f"{ratio(1 / ratio_of_times)} faster" if ratio_of_times < 1 else f"{ratio(ratio_of_times)} slower"


def number(value: float | None) -> str:
    """A quantity without a unit: "0.0123"."""
    return NOTHING if value is None else _significant(value)


def score(value: float | None, unit: str) -> str:
    """A score with its unit: "95.3 %", "2.310 bits"."""
    if value is None:
        return NOTHING
    return f"{value:.{decimals(unit)}f} {unit}".rstrip()


def score_change(delta: float | None, unit: str) -> str:
    """A difference of two scores, with its sign: "+0.3 points", "−0.012 bits"."""
    if delta is None:
        return NOTHING
    places, words = decimals(unit), difference_unit(unit)
    size = round(abs(delta), places)
    sign = "±" if size == 0 else "−" if delta < 0 else "+"
    return f"{sign}{size:.{places}f} {words}".rstrip()


def p_value(p: float) -> str:
    """A p-value: "p = 0.012", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def significance(p: float) -> str:
    """A paired test as text: "significant (p = 0.012)"."""
    return f"{'significant' if p < SIGNIFICANT else 'not significant'} ({p_value(p)})"


def nats(value: float | None) -> str:
    """A divergence or an entropy: "0.00136 nats", "< 0.000001 nats"."""
    if value is None:
        return NOTHING
    return "< 0.000001 nats" if 0 < value < 1e-6 else f"{_significant(value)} nats"


def percentage(value: float | None) -> str:
    """A share that is stored in percent: "99.31 %"."""
    return NOTHING if value is None else f"{value:.{PERCENT_DECIMALS}f} %"


def cosine(value: float | None) -> str:
    """A cosine: "0.99987"."""
    return NOTHING if value is None else f"{value:.{COSINE_DECIMALS}f}"


READERS: Mapping[Unit, Callable[[float | None], str]] = {
    Unit.BYTES: size,
    Unit.COSINE: cosine,
    Unit.COUNT: count,
    Unit.MILLISECONDS: milliseconds,
    Unit.RATIO: ratio,
    Unit.NUMBER: number,
    Unit.NATS: nats,
    Unit.PERCENT: percentage,
}


def quantity(value: Any, of: Quantity, score_unit: str = "") -> str:
    """One value of a quantity with its unit; `score_unit` is that of the task's score."""
    known = None if value is None or value != value else float(value)
    return score(known, score_unit) if of.unit is Unit.SCORE else READERS[of.unit](known)


def with_interval(values: Mapping[str, Any], of: Quantity, score_unit: str = "") -> str:
    """A quantity from values by column, with its 95 % interval if known: "95.3 % (94.1 % to 96.4 %)"."""
    value, *ends = (quantity(values.get(column), of, score_unit) for column in of.columns)
    if not ends or NOTHING in ends:
        return value
    return f"{value} ({' to '.join(ends)})"


def duration(seconds: float | None) -> str:
    """A duration in its two largest units: "0.4 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit, below, lower in ((86400, "d", (3600, "h")), (3600, "h", (60, "min")), (60, "min", (1, "s"))):
        if whole >= unit:
            rest = whole % unit // lower[0]
            return f"{whole // unit} {below}" + (f" {rest} {lower[1]}" if rest else "")
    return f"{whole} s"


def ago(at: float | None, now: float | None = None) -> str:
    """How long ago a time (seconds since 1970) was: "just now", "2 minutes ago", "3 days ago"."""
    if at is None:
        return NOTHING
    passed = (time.time() if now is None else now) - at
    if passed < 5:
        return "just now"
    for unit, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if passed >= unit:
            n = int(passed // unit)
            return f"{n} {name}{'' if n == 1 else 's'} ago"
    return "just now"


def moment(at: float | None) -> str:
    """A time in UTC: "2026-11-22 00:15"."""
    return NOTHING if at is None else dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M")
