"""`slimboard architectures`: measure how each architecture's cost scales with sequence length on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from core.errors import SpecError

DEFAULT_LENGTHS = "256,512,1024,2048,4096"
SHORTEST, LONGEST = 64, 16_384


def architectures(
    lengths: Annotated[str, typer.Option(help="sequence lengths in tokens, separated by commas")] = DEFAULT_LENGTHS,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="number of timing rounds")] = 7,
    only: Annotated[list[str] | None, typer.Option(help="only this technique; can be repeated")] = None,
    save: Annotated[bool, typer.Option("--save", help="show the result on the Architectures page")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE.json", help="also write the result to a file")] = None,
) -> None:
    """Measure time, memory and decoding state of the catalogue's architectures against sequence length."""
    from app.cli import terminal
    from app.screens.architectures import table as shown
    from core.complexity import report as reports
    from core.complexity import subjects
    from core.complexity.survey import survey

    asked = _lengths(lengths)
    for name in only or ():
        if name not in subjects.list_steps():
            known = ", ".join(subjects.list_steps())
            raise SpecError.of("only", name, "is not an architecture of the catalogue", f"Choose from {known}.")
    found = survey(asked, rounds, only or (), say=lambda line: typer.echo(line, err=True))
    rows = shown.make_table(found)
    typer.echo(terminal.format_table(tuple(rows[0]), [list(row.values()) for row in rows]))
    typer.echo(f"\n{shown.describe_conditions(found.conditions)}")
    for name, reason in found.refused.items():
        typer.echo(f"{name} is skipped: {reason}")
    if output is not None:
        output.write_text(reports.as_text(found))
    if save:
        typer.echo(reports.save(found))


def _lengths(text: str) -> list[int]:
    """The sequence lengths in ascending order. Raises SpecError."""
    remedy = f"Use distinct numbers from {SHORTEST} to {LONGEST:,}, such as {DEFAULT_LENGTHS}."
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and SHORTEST <= int(part) <= LONGEST for part in parts):
        raise SpecError.of("lengths", text, "are not valid sequence lengths", remedy)
    numbers = sorted(int(part) for part in parts)
    if len(set(numbers)) != len(numbers):
        raise SpecError.of("lengths", text, "contains a length twice", remedy)
    return numbers
