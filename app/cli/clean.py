"""`slimboard clean`: old weights are removed, results stay."""

from typing import Annotated

import typer

from app.cli import shell
from app.cli.shell import CommandError
from app.text import formats


def clean(
    days: Annotated[float, typer.Option(min=0, help="only of runs that ended longer ago than this")] = 30.0,
    last_too: Annotated[bool, typer.Option("--last-too", help="also the last stage of each run")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="remove them; without it they are only counted")] = False,
) -> None:
    """Remove the weights of old runs' stages to free space; points, curves and results of examples stay.

    A step that needs such weights again computes them again.
    """
    from app.actions import cleaning

    with shell.store():
        try:
            found = cleaning.find(days, last_too=last_too)
        except cleaning.RunsExecute as error:
            raise CommandError(
                f"{formats.plural(error.args[0], 'run')} executing may read any weights. Wait for the end, or cancel."
            ) from error
        told = f"weights of {formats.plural(len(found), 'stage')}, {formats.size(sum(stage.bytes for stage in found))}"
        if not yes:
            typer.echo(f"{told}, could be removed; add --yes to do it" if found else "nothing to remove")
            return
        cleaning.remove(found)
    typer.echo(f"removed {told}")
