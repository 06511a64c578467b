"""`slimboard gate`: whether a finished run's stage keeps the limits of a policy, for CI."""

from typing import Annotated

import typer

from app.cli import shell

FAILED, UNTOLD = 1, 2  # exit statuses: a limit is not kept; whether it is cannot be told


def gate(
    policy: Annotated[
        typer.FileText, typer.Argument(metavar="POLICY.yaml", help="the limits; - reads them from stdin")
    ],
    run: Annotated[str, typer.Argument(metavar="RUN", help="a finished run: 12, or 12.3 for its stage 3")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Hold a finished run against a policy.

    Exit status 0: it keeps every limit; 1: it does not; 2: a bad policy, or no such finished run.
    """
    from app.cli.gate import judge

    try:
        report, kept = judge(shell.read_text(policy, "policy"), run, as_json=as_json)
    except shell.CommandError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNTOLD) from error
    typer.echo(report)
    if not kept:
        raise typer.Exit(FAILED)
