"""`slimboard up`, `serve`, `worker` and `migrate`: commands that run Slimboard's services."""

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.shell import CommandError


class Device(StrEnum):
    """The device type of a run or a worker."""

    CPU = "cpu"
    GPU = "gpu"


class ContainerPart(StrEnum):
    """A part of Slimboard with its own container."""

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
    workers: Annotated[int, typer.Option(min=0, max=64, help="number of CPU workers; each GPU gets another one")] = 1,
    demo: Annotated[bool, typer.Option("--demo", help="queue the demo recipes")] = False,
) -> None:
    """Run store, queue, workers and dashboard on this machine until Ctrl-C."""
    from app.local import stack
    from app.local.process import UpError

    try:
        stack.up(port, host, workers, on_ready=_queue_demo if demo else None, say=typer.echo)
    except UpError as error:
        raise CommandError(str(error)) from error


def _queue_demo() -> None:
    from app.cli import demo

    count = demo.queue()
    typer.echo(f"Queued {count} demo runs." if count else "The demo runs are already in the store.")


def serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="port of the dashboard")] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
) -> None:
    """Run only the dashboard; queue, store and workers run elsewhere."""
    from app.local import stack
    from core.settings import settings

    command = stack.make_front_end_command(host or settings().host, port or settings().port)
    os.chdir(stack.ROOT)
    os.execv(command[0], command)


def worker(device: Annotated[Device, typer.Option(help="device type")] = Device.CPU) -> None:
    """Run a worker, which executes one run at a time on one device."""
    from worker.celery_app import make_worker_arguments

    command = [sys.executable, "-m", "celery", *make_worker_arguments(device.value)]
    os.execv(command[0], command)


def migrate() -> None:
    """Upgrade the store to this version's schema."""
    from core.store import engine

    engine.upgrade()
    typer.echo(f"The store is at revision {engine.revision()[0]}.")


def healthy(part: ContainerPart) -> None:
    """Exit with status 0 if this container's part is healthy, otherwise 1; for docker-compose."""
    from app.local import health

    raise typer.Exit(0 if (health.check_page() if part is ContainerPart.APP else health.check_worker()) else 1)
