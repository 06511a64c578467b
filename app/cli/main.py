"""The `slimboard` command.

Each command imports what it needs when it is called, so that help and short commands are fast. Only `run` and
`architectures` load torch in this process; `worker` loads it in child processes only.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import architectures, bundle, clean, gate_command, services, shell, terminal
from app.cli.services import Device
from app.cli.shell import CommandError, Who
from app.text import formats
from core.errors import SpecError, TechniqueFailure
from core.store.names import LOCAL_USER, UNFINISHED, RunStatus

cli = typer.Typer(
    help="Neural-network compression experiments: queue recipes, run them and inspect the results.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
RunId = Annotated[int, typer.Argument(metavar="ID", help="number of a run")]
Recipe = Annotated[typer.FileText, typer.Argument(metavar="RECIPE.yaml", help="spec in YAML; - reads stdin")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@cli.callback()
def common(
    context: typer.Context,
    user: Annotated[str, typer.Option(help="act as this user")] = LOCAL_USER,
    project: Annotated[str, typer.Option(help="project; by default the user's first one")] = "",
) -> None:
    context.obj = Who(user, project)


services.add_to(cli)


@cli.command()
def run(
    recipe: Recipe,
    as_json: AsJson = False,
    device: Annotated[Device | None, typer.Option(help="cpu or gpu; by default as in the spec")] = None,
) -> None:
    """Execute a recipe immediately, without the queue, and print its stages."""
    from app.cli import foreground

    try:
        result = foreground.execute(shell.read_spec(recipe), device and device.value)
    except (foreground.OutOfTime, TechniqueFailure) as error:
        raise CommandError(str(error)) from error
    if as_json:
        _print_json(result)
        return
    typer.echo(terminal.format_stages(result["stages"]))
    difference = result["reload_max_error"]
    typer.echo(f"\nartifact: {result['artifact']}")
    if difference is not None:
        typer.echo(f"after reloading in a fresh process, outputs differ by at most {difference:.2g}")


@cli.command()
def submit(
    context: typer.Context,
    recipe: Recipe,
    wait: Annotated[bool, typer.Option("--wait", help="wait until it ends; exit status 1 unless it succeeds")] = False,
) -> None:
    """Queue a recipe and print its run number."""
    spec = shell.read_spec(recipe)
    with shell.store(), shell.load_actions() as actions:
        run_id = actions.submit(context.obj.actor(), spec, shell.read_catalogue())
        typer.echo(run_id)
        if wait and _wait_for(run_id) != RunStatus.DONE:
            _print_run(run_id)
            raise typer.Exit(1)


@cli.command("runs")
def list_runs(
    context: typer.Context,
    as_json: AsJson = False,
    status: Annotated[list[RunStatus] | None, typer.Option(help="only runs with this status; can be repeated")] = None,
    text: Annotated[str, typer.Option(help="words in name, model, task, tags or recipe")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="number of runs")] = 20,
) -> None:
    """List the newest runs."""
    from core.store import engine, listing

    with shell.store():
        project_id = context.obj.actor().project.id
        chosen = listing.RunFilter(project_id, tuple(status or ()), text=text)
        with engine.read_session() as s:
            rows = listing.list_runs(s, chosen, page_size=limit)
    if as_json:
        _print_json([dict(row._mapping) for row in rows])
        return
    head = ("run", "status", "name", "model", "task", "recipe", "compute", "queued")
    cells = [
        [
            str(row.id),
            f"{row.status.value} {formats.percent(row.progress, 0)}" if row.status == RunStatus.RUNNING else row.status,
            row.name,
            row.model,
            row.task,
            row.recipe,
            formats.duration(row.compute_seconds),
            formats.ago(row.created_at),
        ]
        for row in rows
    ]
    typer.echo(terminal.format_table(head, cells))


@cli.command()
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """Show a run's status and stages, and the end of its log if it failed."""
    with shell.store():
        _print_run(run_id, as_json)


@cli.command("techniques")
def list_techniques(as_json: AsJson = False) -> None:
    """List the techniques of this installation and of its workers."""
    from core.spec.catalogue import built_in

    known = (shell.read_catalogue() if shell.store_exists() else built_in()).techniques
    if as_json:
        _print_json(known)
        return
    head = ("technique", "family", "forms", "summary")
    rows = [[name, entry["family"], ", ".join(entry["forms"]), entry["summary"]] for name, entry in known.items()]
    typer.echo(terminal.format_table(head, rows))


@cli.command()
def export(
    run_id: RunId,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="folder to create")],
    stage: Annotated[int | None, typer.Option(min=0, help="position of the stage; by default the last one")] = None,
) -> None:
    """Copy the artifact of a stage of a finished run to a folder."""
    from app.actions.artifacts import take
    from core.integrity import DamagedArtifact
    from core.store import engine, stages

    with shell.store(), engine.read_session() as s:
        found = stages.find_run_stage(s, run_id, stage)
    if found is None:
        raise CommandError(f"Run {run_id} is not done or has no such stage. See `slimboard show {run_id}`.")
    if destination.exists():
        raise CommandError(f"{destination} already exists. Remove it, or choose another folder.")
    try:
        folder = take(found[0], "An export")
    except (FileNotFoundError, DamagedArtifact) as error:
        damage = f"is damaged: {error}" if isinstance(error, DamagedArtifact) else "is not on this host"
        raise CommandError(f"The artifact {damage}. Requeue run {run_id} to compute it again.") from error
    try:
        shutil.copytree(folder, destination)
    except OSError as error:
        shutil.rmtree(destination, ignore_errors=True)
        raise CommandError(f"Cannot write {destination}: {error}") from error
    typer.echo(destination)


@cli.command()
def cancel(context: typer.Context, run_id: RunId) -> None:
    """Cancel a queued or running run."""
    with shell.store(), shell.load_actions() as actions:
        stopped = actions.cancel(context.obj.actor(), [run_id])
    typer.echo(f"run {run_id} is being cancelled" if stopped else f"run {run_id} has already ended")


@cli.command()
def requeue(context: typer.Context, run_id: RunId) -> None:
    """Requeue an ended run; finished stages are kept."""
    with shell.store(), shell.load_actions() as actions:
        again = actions.requeue(context.obj.actor(), [run_id])
    typer.echo(f"run {run_id} is requeued" if again else f"run {run_id} has not ended yet")


bundle.add_to(cli)
cli.command()(gate_command.gate)
cli.command()(clean.clean)
cli.command()(architectures.architectures)


def main() -> None:
    """The console script: user errors as lines on stderr, with exit status 2 for specs and 1 otherwise."""
    try:
        cli()
    except SpecError as error:
        for problem in error.problems:
            typer.echo(str(problem), err=True)
        sys.exit(2)
    except CommandError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def _print_run(run_id: int, as_json: bool = False) -> None:
    from core.store import engine, events, runs, stages

    with engine.read_session() as s:
        row = runs.run_details(s, run_id)
        if row is None:
            raise CommandError(f"Run {run_id} does not exist.")
        latencies: dict[int, list[Any]] = {}
        for latency in stages.list_latencies(s, [run_id]):
            latencies.setdefault(latency.position, []).append(latency)
        found = [(place, stage) for place, stage, *_ in stages.list_run_stages(s, run_id) if place.position >= 0]
        lines = events.load_last_events(s, run_id, 15) if row.Run.status == RunStatus.FAILED else []
        described = {
            "id": run_id,
            "name": row.Run.name,
            "status": row.Run.status.value,
            "project": row.project,
            "owner": row.owner,
            "worker": row.worker,
            "progress": row.Run.progress,
            "failure": row.Run.failure and row.Run.failure.value,
            "failure_message": row.Run.failure_message,
            "attempt": row.Run.attempt,
            "spec": row.Run.spec,
            "stages": [
                terminal.describe_stage(place.position, stage, place, latencies.get(place.position, ()))
                for place, stage in found
            ],
        }
    if as_json:
        _print_json(described)
        return
    typer.echo(f"run {run_id} {described['name']}: {described['status']}")
    if described["failure"]:
        typer.echo(f"{described['failure']}: {described['failure_message']}")
    if described["stages"]:
        typer.echo(terminal.format_stages(described["stages"]))
    for line in lines:
        typer.echo(f"  {formats.moment(line.at)} {line.level}: {line.message}")


def _wait_for(run_id: int) -> RunStatus:
    """Wait until a run has ended, showing its progress on stderr."""
    from core.store import engine, runs

    shown = terminal.ProgressLine()
    while True:
        with engine.read_session() as s:
            found = runs.get_run(s, run_id)
            status, text = (
                found.status,
                f"run {run_id} {found.status.value}: {found.progress:.0%} {found.progress_text}",
            )
        if status not in UNFINISHED:
            shown.clear()
            return status
        shown.update(text)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
