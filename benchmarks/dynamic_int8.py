"""How fast `dynamic_int8` runs a Transformer encoder, against float32, bfloat16 and other int8 ways.

    python benchmarks/dynamic_int8.py                     # batch 1 × 128 tokens
    python benchmarks/dynamic_int8.py --shapes 1x128 8x128 1x8

Every round runs each variant in turn, so that a drifting machine slows all of them. What is not installed here is
left out of the table. The ratio is the median of each round's own. Errors are
the largest deviation from float32, as a share of its largest logit.
"""

import sys
from pathlib import Path

sys.path.pop(0)  # this folder, whose names would hide others' (queue)
sys.path.insert(0, str(Path(__file__).parents[1]))

import argparse
import copy
import importlib.util
import io
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from core.models.encoder import Encoder
from core.techniques.quantization.dynamic_int8 import quantize

Forward = Callable[[Tensor], Tensor]
FLAGS = ("avx512f", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
WIDTH, DEPTH, HEADS, VOCABULARY = 768, 12, 12, 8192


def make_encoder() -> Encoder:
    """BERT-base in shape, with random weights (time does not depend on them)."""
    torch.manual_seed(0)
    encoder = Encoder(
        vocab_size=VOCABULARY,
        length=512,
        pooling="mean",
        n_classes=16,
        dim=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        kv_heads=HEADS,
        attention="full",
        attention_settings={},
        ffn="mlp",
        ffn_dim=4 * WIDTH,
    )
    encoder.initialize_(torch.Generator().manual_seed(0))
    return encoder.eval()


def is_block_linear(name: str, module: nn.Module) -> bool:
    """The head stays as it is in every variant."""
    return isinstance(module, nn.Linear) and name != "head"


def dynamic_int8(encoder: Encoder) -> Forward:
    """Ours: every linear of the blocks swapped and prepared."""
    model = copy.deepcopy(encoder)
    for name, module in [(n, m) for n, m in model.named_modules() if is_block_linear(n, m)]:
        packed = quantize(module)
        packed.prepare()
        model.set_submodule(name, packed)
    return model


def bfloat16(encoder: Encoder) -> Forward:
    """The whole model in bfloat16."""
    return copy.deepcopy(encoder).bfloat16()


def compiled(model: nn.Module) -> Forward:
    """The model through torch.compile."""
    return torch.compile(model, dynamic=False)


def torch_dynamic(encoder: Encoder) -> Forward:
    """torch's own (deprecated) dynamic quantization: one activation scale a tensor."""
    torch.backends.quantized.engine = "onednn"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {name for name, module in encoder.named_modules() if is_block_linear(name, module)}
        spec = dict.fromkeys(names, torch.ao.quantization.per_channel_dynamic_qconfig)
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(encoder), spec, dtype=torch.qint8)


def onnxruntime_pair(encoder: Encoder, ids: Tensor, threads: int) -> dict[str, Forward]:
    """ONNX Runtime in float32 and with its dynamic int8, weights by channel."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(encoder, (ids,), file, dynamo=False, opset_version=17, input_names=["ids"])
    plain = onnx.load_from_string(file.getvalue())
    head = [node.name for node in plain.graph.node if node.op_type == "Gemm"]
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "int8.onnx"
        quantize_dynamic(plain, small, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=head)
        int8 = small.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3

    def session(model: bytes) -> Forward:
        made = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda x: torch.from_numpy(made.run(None, {"ids": x.numpy()})[0])

    return {"ONNX Runtime fp32": session(file.getvalue()), "ONNX Runtime dynamic int8": session(int8)}


def variants(ids: Tensor, threads: int, compile: bool) -> dict[str, Forward]:
    """Everything that is compared, float32 first."""
    encoder = make_encoder()
    found: dict[str, Forward] = {
        "fp32 eager": encoder,
        "bf16 eager": bfloat16(encoder),
        "Slimboard dynamic_int8 eager": dynamic_int8(encoder),
    }
    if compile:
        found["bf16 compiled"] = compiled(bfloat16(encoder))
    if hasattr(torch.ao.quantization, "quantize_dynamic"):
        found["torch quantize_dynamic (oneDNN)"] = torch_dynamic(encoder)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        found |= onnxruntime_pair(encoder, ids, threads)
    return found


def measure(forwards: dict[str, Forward], ids: Tensor, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant in each round, after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in forwards}
    for index in range(rounds + 2):
        for name, forward in forwards.items():
            forward(ids)  # brings its own weights back into the caches
            start = time.perf_counter()
            forward(ids)
            if index >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def table(shape: str, forwards: dict[str, Forward], ids: Tensor, rounds: int) -> str:
    """Medians, ratios of each round to the first variant, and errors."""
    times = measure(forwards, ids, rounds)
    reference = next(iter(times))
    exact = forwards[reference](ids).float()
    head = f"{'':34}{'median ms':>10}{'best ms':>9}{'ratio':>7}{'speed-up':>10}{'error':>8}"
    lines = [f"{shape} (batch × tokens), {rounds} rounds", head]
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times[reference], strict=True))
        error = ((forwards[name](ids).float() - exact).abs().max() / exact.abs().max()).item()
        median = statistics.median(values)
        lines.append(f"{name:34}{median:10.2f}{min(values):9.2f}{ratio:7.2f}{1 / ratio:9.2f}×{error:8.4f}")
    return "\n".join(lines)


def conditions(threads: int) -> str:
    """What the times depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    flags = ""
    if info.exists():
        fields = dict(
            (part.strip() for part in line.split(":", 1)) for line in info.read_text().splitlines() if ":" in line
        )
        cpu, features = fields.get("model name", cpu), fields.get("flags", "").split()
        flags = " ".join(
            flag for flag in ("avx512f", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8") if flag in features
        )
    versions = [f"torch {torch.__version__}"]
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        versions.append(f"onnxruntime {onnxruntime.__version__}")
    shape = f"Encoder: width {WIDTH}, {DEPTH} layers, {HEADS} heads"
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before the start"
    return f"{shape}\n{cpu} ({flags}), {threads} threads, {load}\n{', '.join(versions)}"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["1x128"], help="batch x tokens")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(conditions(arguments.threads))
    for shape in arguments.shapes:
        batch, tokens = map(int, shape.split("x"))
        ids = torch.randint(0, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(1))
        forwards = variants(ids, arguments.threads, not arguments.no_compile)
        print("\n" + table(shape, forwards, ids, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
