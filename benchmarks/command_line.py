"""How long `slimboard --help` and `slimboard runs` take, as multiples of `import typer` on the same machine.

    python -m benchmarks.command_line [--rounds 15]

Each is a process of its own, one after the other in every round; CPU seconds of the process, medians over rounds. The
row "a typer command" parses one option and does nothing: what any command of the shell takes.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

COMMAND = "import typer; typer.run(lambda n=1: None)"
CASES = {
    "import typer": ["-c", "import typer"],
    "a typer command": ["-c", COMMAND],
    "import sqlalchemy.orm": ["-c", "import sqlalchemy.orm"],
    "slimboard --help": ["-m", "app.cli.main", "--help"],
    "slimboard runs": ["-m", "app.cli.main", "runs"],
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "SLIMBOARD_HOME": home}
        subprocess.run(
            [sys.executable, "-m", "app.cli.main", "migrate"], check=True, env=environment, capture_output=True
        )
        for _ in range(rounds):
            for name, arguments in CASES.items():
                seconds[name].append(_cpu_seconds(arguments, environment))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"CPU seconds, medians of {rounds} rounds")
    print(f"{'':24}{'seconds':>9}{'× import typer':>16}")
    for name, value in medians.items():
        print(f"{name:24}{value:9.3f}{value / medians['import typer']:16.1f}")


def _cpu_seconds(arguments: list[str], environment: dict[str, str]) -> float:
    before = _used()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, capture_output=True)
    return _used() - before


def _used() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()
