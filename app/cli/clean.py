"""`slimboard clean`: remove old weights and keep the results."""

from typing import Annotated

import typer

from app.cli import shell
from app.cli.shell import CommandError
from app.text import formats


def clean(
    days: Annotated[float, typer.Option(min=0, help="only runs that ended at least this many days ago")] = 30.0,
    last_too: Annotated[bool, typer.Option("--last-too", help="include the last stage of each run")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="remove the weights instead of only counting them")] = False,
) -> None:
    """Remove the weights of old stages to free space; points, curves and per-example results stay.

    Removed weights are computed again if a step needs them.
    """
    from app.actions import cleaning

    with shell.store():
        try:
            found = cleaning.find(days, last_too=last_too)
        except cleaning.RunsExecute as error:
            raise CommandError(
                f"{formats.plural(error.args[0], 'run')} in progress may read any weights. Wait, or cancel first."
            ) from error
        summary = (
            f"weights of {formats.plural(len(found), 'stage')}, {formats.size(sum(stage.bytes for stage in found))}"
        )
        if not yes:
            typer.echo(f"{summary}, can be removed; add --yes to remove them" if found else "nothing to remove")
            return
        cleaning.remove(found)
    typer.echo(f"removed {summary}")
