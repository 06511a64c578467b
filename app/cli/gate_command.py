"""`slimboard gate`: check a finished run's stage against a policy, for CI."""

from typing import Annotated

import typer

from app.cli import shell

FAILED, IMPOSSIBLE = 1, 2  # exit statuses: a limit is not met; the check is not possible


def gate(
    policy: Annotated[
        typer.FileText, typer.Argument(metavar="POLICY.yaml", help="file with the limits; - reads stdin")
    ],
    run: Annotated[str, typer.Argument(metavar="RUN", help="a finished run such as 12, or 12.3 for its stage 3")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check a finished run against a policy.

    Exit status: 0 if it meets every limit, 1 if not, 2 for an invalid policy or no such finished run.
    """
    from app.cli.gate import judge

    try:
        report, kept = judge(shell.read_text(policy, "policy"), run, as_json=as_json)
    except shell.CommandError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(IMPOSSIBLE) from error
    typer.echo(report)
    if not kept:
        raise typer.Exit(FAILED)
