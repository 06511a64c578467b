"""`slimboard bundle`, `import` and `rerun`: a run in one file, from a shell."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app.cli import shell
from app.cli.shell import CommandError, Who
from core.bundle.errors import BundleError

RunId = Annotated[int, typer.Argument(metavar="ID", help="number of a run that has ended")]
Target = Annotated[Path, typer.Argument(metavar="FILE.zip", help="file to write")]
Source = Annotated[Path, typer.Argument(metavar="FILE.zip", help="what `slimboard bundle` wrote", dir_okay=False)]


def add_to(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command("bundle")(bundle)
    cli.command("import")(import_run)
    cli.command("rerun")(rerun)


def bundle(
    run_id: RunId,
    file: Target,
    weights: Annotated[bool, typer.Option("--artifacts", help="also the weights of every stage")] = False,
) -> None:
    """Write a run with all that its page shows into one file, for another installation."""
    from app.actions import bundles

    with shell.store(), _refused():
        bundles.save(run_id, file, weights=weights)
    typer.echo(file)


def import_run(
    context: typer.Context,
    file: Source,
    project: Annotated[str, typer.Option(help="into this project; the user's first one by default")] = "",
    again: Annotated[bool, typer.Option("--again", help="also where the run is in the project already")] = False,
) -> None:
    """Check a bundle, add its run as an ended one, and print the run's number."""
    from app.actions import bundles
    from core.bundle import read

    with shell.store(), shell.acting(), _refused(), read.opened(file) as found:
        actor = Who(context.obj.user, project or context.obj.project).actor()
        run_id, differing = bundles.add(actor, found, shell.catalogue(), again=again)
    for label in differing:
        typer.echo(f"{label}: this store knows the same stage with another score or size, which stands", err=True)
    typer.echo(run_id)


def rerun(context: typer.Context, file: Source) -> None:
    """Queue the recipe of a bundle here, and print the number of the new run."""
    from core.bundle import read

    with shell.store(), shell.acting() as actions, _refused(), read.opened(file) as found:
        others = actions.named_runs(found.spec)
        if others:
            raise CommandError(
                f"The recipe names run {others[0]} of the store that it comes from. Import that run with its weights "
                "(slimboard bundle --artifacts), name it by its number here, and submit the recipe."
            )
        run_id = actions.submit(context.obj.actor(), found.spec, shell.catalogue())
    typer.echo(run_id)


@contextmanager
def _refused() -> Iterator[None]:
    """What is wrong with a bundle, in words for the terminal."""
    try:
        yield
    except BundleError as error:
        raise CommandError(str(error)) from error
