"""What routing costs: forward and backward of a mixture of experts beside the bare products of its experts.

    python benchmarks/mixture_of_experts.py                            # Switch-Base's width, 8, 32 and 128 experts
    python benchmarks/mixture_of_experts.py --experts 8 --width 512 --rounds 15

A routed feed-forward layer in float32, without the optimizer. The bare products are those of its experts for the
same numbers of tokens, all forward ones before the two backward ones of each matrix, as in any training, one
`torch.mm` each into memory that is there already; nothing is routed, gathered, activated or added up. Every round runs
each variant in turn and drops its gradients, as trainings do. Ratios are medians of each round's own, of elapsed and of
processor time: on a machine that others use too, the second tells more.

Hugging Face's blocks are made from configurations, have the same weights in the same memory and the same router, and no
limit on an expert's tokens, so that all variants multiply the same rows. What the losses do and what experts buy:
`benchmarks/experts_training.py`.
"""

import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose names would hide others' (queue)
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
import transformers
from torch import Tensor, nn
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.routing import sort_by_expert
from core.nn.experts.switch import SwitchExperts
from core.nn.experts.top2 import Top2Experts

RESULTS = Path(__file__).parent / "results"
Call = Callable[[], object]


def make(top: int, n_experts: int, width: int) -> MixtureOfExperts:
    """Ours: Switch's ReLU experts, or Mixtral's SwiGLU ones of which a token meets two; no limits."""
    limits = {"capacity_factor": None, "eval_capacity_factor": None, "balance_weight": 0.01}
    form = {"dim": width, "hidden": 4 * width, "bias": False}
    if top == 1:
        mixture = SwitchExperts(n_experts, activation="relu", gated=False, **form, **limits)
    else:
        mixture = Top2Experts(n_experts, activation="silu", gated=True, **form, **limits)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.normal_(0, width**-0.5, generator=generator)
    return mixture.train()


def hugging_face_switch(mixture: MixtureOfExperts, tokens: int) -> nn.Module:
    """Their Switch layer with our weights."""
    form, n = mixture.form, mixture.n_experts
    config = transformers.SwitchTransformersConfig(
        d_model=form.dim, d_ff=form.hidden, num_experts=n, expert_capacity=tokens, dropout_rate=0.0
    )
    config.router_jitter_noise = 0.0
    with torch.device("meta"):
        block = SwitchTransformersSparseMLP(config)
    block.router.classifier.weight = mixture.router
    up, down = (layer.weight.detach().chunk(n) for layer in (mixture.experts.up, mixture.experts.down))
    for e, expert in enumerate(block.experts.values()):
        expert.wi.weight, expert.wo.weight = nn.Parameter(up[e]), nn.Parameter(down[e])
    return block.train()


def hugging_face_mixtral(mixture: MixtureOfExperts) -> dict[str, nn.Module]:
    """Their Mixtral layers by implementation, with our weights (gate and up are one tensor there, and so copied)."""
    n = mixture.n_experts
    gate, up, down = (layer.weight.detach().view(n, layer.out_features, -1) for layer in mixture.experts.children())
    gate_up, down = nn.Parameter(torch.cat((gate, up), dim=1)), nn.Parameter(down)
    blocks = {}
    for implementation in ("eager", "grouped_mm"):
        block = _mixtral_block(mixture, implementation)
        block.gate.weight, block.experts.gate_up_proj, block.experts.down_proj = mixture.router, gate_up, down
        blocks[f"Hugging Face Mixtral, {implementation}"] = block
    return blocks


def _mixtral_block(mixture: MixtureOfExperts, implementation: str) -> MixtralSparseMoeBlock:
    form, n = mixture.form, mixture.n_experts
    config = transformers.MixtralConfig(
        hidden_size=form.dim, intermediate_size=form.hidden, num_local_experts=n, num_experts_per_tok=2
    )
    config._experts_implementation = implementation
    with torch.device("meta"):
        block = MixtralSparseMoeBlock(config)
    return block.train()


def bare_products(mixture: MixtureOfExperts, x: Tensor) -> Call:
    """The products of the experts' matrices for the tokens that the router sends each of them."""
    with torch.no_grad():
        routing = mixture.route(x, torch.ones(x.shape[:2], dtype=torch.bool))
        order, segments = sort_by_expert(routing.experts, routing.kept, mixture.n_experts)
        rows = x.flatten(0, 1)[order // routing.experts.shape[-1]]
    layers = []
    for layer in mixture.experts.children():
        weight = layer.matrices().detach()
        inputs, outputs = torch.randn(len(rows), layer.in_features), torch.randn(len(rows), layer.out_features)
        made = torch.empty_like(outputs), torch.empty_like(inputs), torch.zeros_like(weight)
        layers.append((weight, inputs, outputs, made))

    def run() -> None:
        for weight, inputs, _, (outputs, *_) in layers:
            for e, place in segments.slices:
                torch.mm(inputs[place], weight[e].t(), out=outputs[place])
        for weight, inputs, of_outputs, (_, of_inputs, of_weight) in reversed(layers):
            for e, place in segments.slices:
                torch.mm(of_outputs[place], weight[e], out=of_inputs[place])
                torch.mm(of_outputs[place].t(), inputs[place], out=of_weight[e])

    return run


def pass_of(block: nn.Module, x: Tensor, gradient: Tensor) -> Call:
    """Forward and backward; the gradients are dropped."""
    inputs = x.clone().requires_grad_()

    def run() -> None:
        block(inputs).backward(gradient)
        if isinstance(block, MixtureOfExperts):
            block.aux_losses()
        block.zero_grad(set_to_none=True)
        inputs.grad = None

    return run


def variants(top: int, n_experts: int, width: int, tokens: int) -> tuple[dict[str, Call], dict[str, nn.Module], Tensor]:
    """What is compared: the bare products first."""
    mixture = make(top, n_experts, width)
    x = torch.randn(tokens // 512, 512, width, generator=torch.Generator().manual_seed(1))
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    if top == 1:
        blocks = {"Slimboard top-1 ReLU": mixture, "Hugging Face Switch": hugging_face_switch(mixture, tokens)}
    else:
        blocks = {"Slimboard top-2 SwiGLU": mixture, **hugging_face_mixtral(mixture)}
    calls: dict[str, Call] = {"bare products": bare_products(mixture, x)}
    return calls | {name: pass_of(block, x, gradient) for name, block in blocks.items()}, blocks, x


def measure(calls: dict[str, Call], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Elapsed and processor milliseconds of each variant in each round, after one of warm-up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter(), time.process_time()
            call()
            if index:
                times[name].append((1e3 * (time.perf_counter() - start[0]), 1e3 * (time.process_time() - start[1])))
    return times


def speed(arguments: argparse.Namespace) -> str:
    """A table for each number of experts and of choices."""
    lines = []
    for top in arguments.top:
        for n_experts in arguments.experts:
            calls, blocks, x = variants(top, n_experts, arguments.width, arguments.tokens)
            outputs = {name: block(x).detach() for name, block in blocks.items()}
            times = measure(calls, arguments.rounds)
            lines += ["", f"{n_experts} experts, top-{top}, {arguments.tokens} tokens, width {arguments.width}"]
            lines.append(f"{'':34}{'median ms':>10}{'to bare':>9}{'CPU ms':>9}{'to bare':>9}{'error':>10}")
            reference = next(iter(outputs.values()))
            for name, values in times.items():
                row = f"{name:34}"
                for clock, width in ((0, 10), (1, 9)):
                    own, bare = ([pair[clock] for pair in pairs] for pairs in (values, times["bare products"]))
                    ratio = statistics.median(a / b for a, b in zip(own, bare, strict=True))
                    row += f"{statistics.median(own):{width}.0f}{ratio:8.2f}×"
                if name in outputs:
                    row += f"{float((outputs[name] - reference).abs().max() / reference.abs().max()):10.1e}"
                lines.append(row)
            print("\n".join(lines[-len(times) - 3 :]), flush=True)
    return "\n".join(lines)


def conditions() -> str:
    """What the times depend on."""
    info = Path("/proc/cpuinfo")
    cpu = platform.machine()
    if info.exists():
        cpu = next(line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line)
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{cpu}, {torch.get_num_threads()} threads, {load}\n{versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--top", type=int, nargs="+", choices=[1, 2], default=[1, 2], help="experts of a token")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/mixture_of_experts.txt")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    head = conditions()
    print(head)
    table = speed(arguments)
    if arguments.save:
        (RESULTS / "mixture_of_experts.txt").write_text(f"{head}\n{table}\n")


if __name__ == "__main__":
    main()
