"""Weight quantization compared.

    python -m benchmarks.quantization [--vehicles llama opt vit] [--peer PYTHON] [--save]

Trains each vehicle through the product's pipeline, quantizes it by every method at every format on the same calibration
examples, and prints KL(dense || quantized) in millinats a prediction with its 95 % interval over test examples, top-1
agreement, score, packed bytes and processor seconds. With --peer, an interpreter that has llm-compressor, its methods
quantize the same checkpoint with the same windows, and are scored here in the same way. What is trained stays in
--folder.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from benchmarks.quantization import arms
from benchmarks.quantization.arms import FORMATS, Format
from benchmarks.quantization.trial import Trial, calibration_tokens, carry_out, dense_run, judge, load_dense
from benchmarks.quantization.vehicles import VEHICLES
from benchmarks.sparsity.outcomes import keep_in
from core.engine.pipeline import Execution
from core.errors import SpecError

RESULTS = Path(__file__).parents[1] / "results" / "quantization"
CALIBRATION = 128  # windows, as many as the techniques draw by default
HEAD = (
    f"{'':34}{'KL, mnat':>10}{'95 % interval':>20}{'same top-1':>12}{'score':>9}{'bytes':>11}{'CPU s':>8}{'peak MB':>9}"
)


def main() -> None:
    """Print a table for each vehicle, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", nargs="+", choices=VEHICLES, default=list(VEHICLES))
    parser.add_argument("--formats", default=".*", help="a regular expression, such as 'W4 g32'")
    parser.add_argument("--methods", default=".*", help="a regular expression, such as 'GPTQ|RTN'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has llm-compressor")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slimboard-quantization")
    parser.add_argument("--save", action="store_true", help=f"also write the tables into {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_in(arguments.folder)
    started = time.monotonic()
    for vehicle in arguments.vehicles:
        lines = []
        for line in report(vehicle, arguments):
            print(line, flush=True)
            lines.append(line)
        if arguments.save:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{vehicle}.txt").write_text("\n".join(lines) + "\n")
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes")


def report(vehicle: str, arguments: argparse.Namespace) -> Iterator[str]:
    """The table of a vehicle, line by line."""
    execution = dense_run(vehicle, arguments.seed, arguments.folder)
    dense = judge(execution, load_dense(execution).model, 0.0, None)
    score = f"{dense.score:.4f}"
    yield f"## {vehicle}: dense {score}, seed {arguments.seed}, torch {torch.__version__}"
    yield HEAD
    formats = [form for form in FORMATS if re.search(arguments.formats, str(form))]
    peers = run_peer(execution, formats, arguments) if arguments.peer and vehicle != "vit" else {}
    for form in formats:
        yield f"{form}"
        for method, steps in arms.methods(form).items():
            if re.search(arguments.methods, method):
                yield line_of(method, execution, steps)
        for method, trial in peers.get(form, {}).items():
            yield formatted(f"llm-compressor {method}", trial)


def line_of(method: str, execution: Execution, steps: arms.Steps) -> str:
    """A trial's line, or why there is none."""
    try:
        return formatted(method, carry_out(execution, steps))
    except SpecError as error:
        return f"  {method:32}{error}"


def formatted(name: str, trial: Trial) -> str:
    """A line of the table."""
    fidelity = trial.fidelity
    low, high = (1000 * (end or 0.0) for end in (fidelity.kl_low, fidelity.kl_high))
    size = f"{trial.size:,}" if trial.size else ""
    peak = f"{trial.peak_bytes / 1e6:.0f}" if trial.peak_bytes else ""
    return (
        f"  {name:32}{1000 * fidelity.kl:>10.3f}{f'{low:.3f} to {high:.3f}':>20}{fidelity.top1_agreement:>10.2f} %"
        f"{trial.score:>9.4f}{size:>11}{trial.seconds:>8.1f}{peak:>9}"
    )


def run_peer(
    execution: Execution, formats: list[Format], arguments: argparse.Namespace
) -> dict[Format, dict[str, Trial]]:
    """The peer's trials by format and method; its failures are printed."""
    found: dict[Format, dict[str, Trial]] = {form: {} for form in formats}
    subject = load_dense(execution)
    assert isinstance(subject.model, transformers.PreTrainedModel)
    with tempfile.TemporaryDirectory(prefix="slimboard-peer-") as name:
        folder = Path(name)
        subject.model.save_pretrained(folder / "model")
        for file in Path(execution.spec.model.source.removeprefix("hf:")).glob("*token*.json"):
            shutil.copy(file, folder / "model")
        save_file({"input_ids": calibration_tokens(execution, CALIBRATION)}, folder / "windows.safetensors")
        named = {f"{m}:{f.bits}:{f.group_size or 0}:{'symmetric' if f.symmetric else 'affine'}": (f, m)
                 for f in formats for m in arms.PEER}  # fmt: skip
        command = [arguments.peer, Path(__file__).with_name("peer.py"), folder / "model"]
        done = subprocess.run(
            [*command, folder / "windows.safetensors", folder / "out", *named, ""], stdout=subprocess.PIPE, text=True
        )
        for row in map(json.loads, done.stdout.splitlines()):
            if row["format"] not in named:
                continue
            form, method = named[row["format"]]
            if "error" in row:
                print(f"llm-compressor {method} at {form} failed: {row['error']}", flush=True)
                continue
            model = load_dense(execution).model
            model.load_state_dict(load_file(folder / "out" / f"{row['format']}.safetensors"), strict=False)
            trial = judge(execution, model, row["seconds"], None)
            found[form][method] = Trial(trial.fidelity, trial.score, row["seconds"], None, row["peak_bytes"])
    return found


if __name__ == "__main__":
    main()
