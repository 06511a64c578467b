"""A survey of architectures as a table, for the page and the command line. Pure; loads no torch."""

from app.charts.architectures import AXES, describe_power
from app.text import formats
from core.complexity.report import MeasuredArchitecture, SurveyConditions, SurveyReport

PARALLEL = "Trains in parallel"


def make_table(report: SurveyReport) -> list[dict[str, str]]:
    """One row per architecture: its name, whether it trains in parallel, and each quantity at the longest length with
    its scaling exponent."""
    return [
        {
            "Architecture": architecture.name,
            PARALLEL: report.parallel(architecture) or formats.NOTHING,
            **{axis.head: _grown(report, architecture, quantity) for quantity, axis in AXES.items()},
        }
        for architecture in report.architectures
    ]


def _grown(report: SurveyReport, architecture: MeasuredArchitecture, quantity: str) -> str:
    known = [value for value in getattr(architecture.costs, quantity) if value is not None]
    if not known:
        return formats.NOTHING
    value, growth = AXES[quantity].read(known[-1]), describe_power(report.fit(architecture, quantity))
    return f"{value} ({growth})" if growth else value


def describe_conditions(found: SurveyConditions) -> str:
    """Where and how a survey was measured, on one line."""
    disturbed = f"other processes used {formats.percent(found.disturbed_share, 0)} of the cores"
    parts = [
        f"{found.taken_at} UTC",
        found.hardware,
        formats.plural(found.threads, "thread"),
        f"torch {found.torch}",
        f"Slimboard {found.slimboard}",
        found.dtype,
        f"one sequence, {found.depth} blocks of width {found.dim}, {found.heads} heads",
        f"medians of {found.rounds} interleaved rounds",
        disturbed,
    ]
    return " · ".join(parts)
