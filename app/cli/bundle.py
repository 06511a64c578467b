"""`slimboard bundle`, `import` and `rerun`: runs as files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app.cli import shell
from app.cli.shell import CommandError, Who
from core.bundle.errors import BundleError

RunId = Annotated[int, typer.Argument(metavar="ID", help="number of an ended run")]
Target = Annotated[Path, typer.Argument(metavar="FILE.zip", help="file to write")]
Source = Annotated[
    Path, typer.Argument(metavar="FILE.zip", help="a file written by `slimboard bundle`", dir_okay=False)
]


def add_to(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("bundle")(bundle)
    cli.command("import")(import_run)
    cli.command("rerun")(rerun)


def bundle(
    run_id: RunId,
    file: Target,
    weights: Annotated[bool, typer.Option("--artifacts", help="include the weights of every stage")] = False,
) -> None:
    """Write a run and everything on its page to a file for another installation."""
    from app.actions import bundles

    with shell.store(), _refused():
        bundles.save(run_id, file, weights=weights)
    typer.echo(file)


def import_run(
    context: typer.Context,
    file: Source,
    project: Annotated[str, typer.Option(help="target project; by default the user's first one")] = "",
    again: Annotated[bool, typer.Option("--again", help="import even if the run is already in the project")] = False,
) -> None:
    """Validate a bundle, add its run as an ended one, and print the run's number."""
    from app.actions import bundles
    from core.bundle import read

    with shell.store(), shell.load_actions(), _refused(), read.open_bundle(file) as found:
        actor = Who(context.obj.user, project or context.obj.project).actor()
        run_id, differing = bundles.add(actor, found, shell.read_catalogue(), again=again)
    for label in differing:
        typer.echo(f"{label}: this store has the same stage with a different score or size, which is kept", err=True)
    typer.echo(run_id)


def rerun(context: typer.Context, file: Source) -> None:
    """Queue the recipe of a bundle here and print the new run's number."""
    from core.bundle import read

    with shell.store(), shell.load_actions() as actions, _refused(), read.open_bundle(file) as found:
        others = actions.list_named_runs(found.spec)
        if others:
            raise CommandError(
                f"The recipe refers to run {others[0]} of its original store. Import that run with its weights "
                "(slimboard bundle --artifacts), replace the number with the one it has here, and submit the recipe."
            )
        run_id = actions.submit(context.obj.actor(), found.spec, shell.read_catalogue())
    typer.echo(run_id)


@contextmanager
def _refused() -> Iterator[None]:
    """Turn a BundleError into a CommandError."""
    try:
        yield
    except BundleError as error:
        raise CommandError(str(error)) from error
