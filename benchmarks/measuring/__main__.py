"""How long measuring takes, by part, in this checkout and in another one, in turn on the same machine.

    python -m benchmarks.measuring [--against FOLDER] [--rounds 3]

`slimboard run` on a LLaMA-like checkpoint of 6 million parameters with one step of `rtn`: once with nothing there, and
once more with artifacts and per-example results there. 64 windows are scored, and latency has 10 rounds. Wall and CPU
seconds are of one stage, medians over rounds. On a machine that others use, latencies are measured up to three times:
compare CPU seconds, and parts other than latency.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.byte_tokenizer import N_TOKENS, save_byte_tokenizer
from benchmarks.measuring import once

HERE = Path(__file__).parents[2]
CASES = ("new", "again")  # nothing there, artifacts and per-example results there
RECIPE = """
model: {{source: "hf:{model}"}}
task: {{source: "builtin:python-docs"}}
recipe:
  - rtn: {{bits: 4, granularity: group, group_size: 32}}
measure: {{repeats: 10, test_examples: 64}}
"""

Stage = dict[str, list[float]]  # part -> wall and CPU seconds
Place = tuple[str, str, int]  # checkout, case, stage


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout, whose seconds are the first in each row")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    checkouts = {"old": arguments.against, "new": HERE} if arguments.against else {"new": HERE}
    found: dict[Place, list[Stage]] = {}
    with tempfile.TemporaryDirectory(prefix="slimboard-measuring-") as folder:
        save_model(Path(folder) / "model")
        for i in range(arguments.rounds):
            for name in sorted(checkouts, reverse=i % 2 == 1):
                _add_round(found, name, checkouts[name].resolve(), Path(folder) / f"{name}-{i}", Path(folder) / "model")
    _print(found, list(checkouts), arguments.rounds)


def save_model(folder: Path) -> None:
    """A LLaMA of 6 million random weights on single bytes, as `save_pretrained` writes it."""
    import torch
    import transformers

    save_byte_tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=N_TOKENS,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=7,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def _add_round(found: dict[Place, list[Stage]], name: str, checkout: Path, home: Path, model: Path) -> None:
    home.mkdir()
    recipe, seconds = home / "recipe.yaml", home / "seconds.json"
    recipe.write_text(RECIPE.format(model=model))
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "SLIMBOARD_HOME": str(home),
        "SLIMBOARD_DATA": str(model.parent),
        "SLIMBOARD_LOCK": str(home / "lock"),
    }
    for case in CASES:
        command = [sys.executable, "-P", once.__file__, str(recipe), str(seconds)]
        subprocess.run(command, check=True, env=environment, cwd=home, stdout=subprocess.DEVNULL)
        for i, stage in enumerate(json.loads(seconds.read_text())):
            found.setdefault((name, case, i), []).append(stage)


def _print(found: dict[Place, list[Stage]], checkouts: list[str], rounds: int) -> None:
    print(f"seconds of measuring, wall / CPU: medians of {rounds} rounds")
    for case in CASES:
        for i, stage in enumerate(("the model itself", "rtn")):
            print(f"\n{stage}, {'with nothing there' if case == 'new' else 'artifacts and results of examples there'}")
            print(f"{'':24}" + "".join(f"{name:>18}" for name in checkouts))
            columns = [found[name, case, i] for name in checkouts]
            for part in once.PARTS:
                _print_row(part, [[stage.get(part, [0.0, 0.0]) for stage in column] for column in columns])
            rounds_out = [[_sum(stage, set(stage) - {"latency: rounds"}) for stage in column] for column in columns]
            _print_row("all but rounds", rounds_out)
            _print_row("all", [[_sum(stage, stage) for stage in column] for column in columns])


def _sum(stage: Stage, parts: Iterable[str]) -> list[float]:
    return [sum(stage[part][i] for part in parts) for i in range(2)]


def _print_row(name: str, columns: list[list[list[float]]]) -> None:
    cells = [
        " / ".join(f"{statistics.median(seconds[i] for seconds in column):.2f}" for i in range(2)) for column in columns
    ]
    print(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
