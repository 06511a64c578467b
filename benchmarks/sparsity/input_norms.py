"""How much the inputs of a layer differ in size, in the comparison's models: what Wanda's score can add to magnitude.

    python -m benchmarks.sparsity.input_norms [--vehicles gpt llama vit] [--seed 0] [--save]

Trains each vehicle densely (or takes what `benchmarks.sparsity` left in --folder) and prints, over its prunable layers,
how many times the median the largest input's norm is, and on how many weights the masks of Wanda and of magnitude
within rows differ at 50 %.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.sparsity.arms import DENSE
from benchmarks.sparsity.outcomes import execution_of, keep_in, last_stage, spec_of
from benchmarks.sparsity.vehicles import VEHICLES
from core.algorithms.masks import prunable_weights
from core.artifacts import artifact
from core.calibration import groups_of, matrices_of
from core.calibration.sequential import walk
from core.engine.recording import MemoryRecord
from core.techniques.pruning.wanda import keep_rows
from core.techniques.pruning.wanda_layers import wanda_scores

RESULTS = Path(__file__).parents[1] / "results" / "sparsity"
EXAMPLES = 128


def layers_of(vehicle: str, seed: int, folder: Path) -> list[tuple[str, float, float]]:
    """Of each prunable layer: its name, the largest input's norm over the median's, and the share of other choices."""
    execution = execution_of(spec_of(vehicle, DENSE, seed, folder, 1.0), folder, "cpu")
    model = artifact.load_models(last_stage(execution), execution.device)["main"]
    batch = execution.task.split("calibration").batch(torch.arange(EXAMPLES))
    names = [name.removesuffix(".weight") for name in prunable_weights(model)]
    found = []
    for block in walk(model, [batch], names, MemoryRecord(), execution.device):
        for group, norms in block.input_norms():
            spread = float((norms.amax(-1) / norms.median(-1).values).max())
            for name in group:
                layer = model.get_submodule(name)
                weight = matrices_of(layer.get_parameter("weight"), groups_of(layer))
                scores = (wanda_scores(weight.detach(), norms), weight.detach().abs())
                kept = [keep_rows(score.flatten(0, 1), 0.5) for score in scores]
                found.append((name, spread, float((kept[0] != kept[1]).float().mean())))
    return found


def main() -> None:
    """Print a line a vehicle, and keep them with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", nargs="+", choices=VEHICLES, default=["gpt", "llama", "vit"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "slimboard-sparsity")
    parser.add_argument("--save", action="store_true", help="also write it into benchmarks/results/sparsity")
    arguments = parser.parse_args()
    keep_in(arguments.folder)
    lines = [f"{'':8}{'layers':>7}{'largest / median input':>30}{'in':>34}{'other weights kept':>22}"]
    for vehicle in arguments.vehicles:
        found = layers_of(vehicle, arguments.seed, arguments.folder)
        spreads = [spread for _, spread, _ in found]
        where = max(found, key=lambda layer: layer[1])[0]
        told = f"median {statistics.median(spreads):.1f}, most {max(spreads):.1f}"
        other = statistics.fmean(share for _, _, share in found)
        lines.append(f"{vehicle:8}{len(found):>7}{told:>30}{where:>34}{100 * other:>20.1f} %")
    print("\n".join(lines))
    if arguments.save:
        lines.append(f"seed {arguments.seed}, torch {torch.__version__}")
        (RESULTS / "input_norms.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
