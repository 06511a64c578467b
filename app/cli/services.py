"""`slimboard up`, `serve`, `worker` and `migrate`: what keeps the pages and the runs going, from a shell."""

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.shell import CommandError


class Device(StrEnum):
    """What a run or a worker computes on."""

    CPU = "cpu"
    GPU = "gpu"


class ContainerPart(StrEnum):
    """A part of Slimboard that has a container of its own."""

    APP = "app"
    WORKER = "worker"


def add_to(cli: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, serve, worker, migrate):
        cli.command()(command)
    cli.command(hidden=True)(healthy)


def up(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the dashboard")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on; 127.0.0.1 by default")] = None,
    workers: Annotated[int, typer.Option(min=0, max=64, help="CPU workers; each GPU has its own besides")] = 1,
    demo: Annotated[bool, typer.Option("--demo", help="queue the demonstration recipes")] = False,
) -> None:
    """Run everything on this machine: store, queue, workers and dashboard, until Ctrl-C."""
    from app.local import stack
    from app.local.process import UpError

    try:
        stack.up(port, host, workers, on_ready=_queue_demonstration if demo else None, say=typer.echo)
    except UpError as error:
        raise CommandError(str(error)) from error


def _queue_demonstration() -> None:
    from app.cli import demo

    count = demo.queue()
    typer.echo(f"Queued {count} demonstration runs." if count else "The demonstration runs are in the store already.")


def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the dashboard")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
) -> None:
    """Run the dashboard alone; queue, store and workers are elsewhere."""
    from app.local import stack
    from core.settings import settings

    command = stack.front_end_command(host or settings().host, port or settings().port)
    os.chdir(stack.ROOT)
    os.execv(command[0], command)


def worker(device: Annotated[Device, typer.Option(help="what it computes on")] = Device.CPU) -> None:
    """Run a worker: one device, one run at a time."""
    from worker.celery_app import worker_arguments

    command = [sys.executable, "-m", "celery", *worker_arguments(device.value)]
    os.execv(command[0], command)


def migrate() -> None:
    """Bring the store to this version's schema."""
    from core.store import engine

    engine.upgrade()
    typer.echo(f"The store is at revision {engine.revision()[0]}.")


def healthy(part: ContainerPart) -> None:
    """Exit status 0 if this container's part works, else 1; for docker-compose."""
    from app.local import health

    raise typer.Exit(0 if (health.page_answers() if part is ContainerPart.APP else health.worker_beats()) else 1)
