"""RWKV's recurrences, forward and backward, beside loops over tokens: RWKV-4's beside Hugging Face's.

    python -m benchmarks.rwkv_recurrences [--lengths 256 1024] [--batch 4] [--dim 256] [--rounds 5] [--save]

One layer without its linears. Each round executes every form once, forward and backward; medians of the processor
time of one thread, which others on the machine disturb less than the clock's. Ratios are of each round's own.
The loop of RWKV-5 and RWKV-6 is the paper's recurrence, in the fewest operators that were found.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

from benchmarks.recurrent import conditions
from core.nn.rwkv.matrix_wkv import matrix_wkv
from core.nn.rwkv.wkv import empty_state, wkv

RESULT = Path(__file__).parent / "results" / "rwkv_recurrences.txt"
HEAD_DIM = 64

Form = Callable[[], Tensor]


def forms(batch: int, length: int, dim: int) -> dict[str, tuple[Form, Form]]:
    """By name ours and the loop, on the same inputs."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    k, v, u = drawn(batch, length, dim), drawn(batch, length, dim), drawn(dim)
    rate = torch.linspace(-5, 3, dim).requires_grad_()
    nothing = empty_state(batch, dim, torch.float32, torch.device("cpu"))
    heads = dim // HEAD_DIM
    r5, k5, v5 = (drawn(batch, heads, length, HEAD_DIM) for _ in range(3))
    u5 = drawn(heads, HEAD_DIM)
    static, dynamic = drawn(1, heads, 1, HEAD_DIM), drawn(batch, heads, length, HEAD_DIM)

    def matrix(log_rate: Tensor, form: Callable[..., Tensor]) -> Form:
        return lambda: form(r5, k5, v5, (-(log_rate - 3).exp()).expand(-1, -1, length, -1), u5)

    return {
        "RWKV-4": (
            lambda: wkv(k, v, -rate.exp(), u, nothing)[0],
            lambda: rwkv_linear_attention_cpu(rate, u, k, v)[0],
        ),
        "RWKV-5": (matrix(static, _chunks), matrix(static, _loop)),
        "RWKV-6": (matrix(dynamic, _chunks), matrix(dynamic, _loop)),
    }


def _chunks(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor) -> Tensor:
    return matrix_wkv(r, k, v, log_decay, bonus)[0]


def _loop(r: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor) -> Tensor:
    state = k.new_zeros(*k.shape[:2], k.shape[3], v.shape[3])
    decay = log_decay.exp().unbind(2)
    outputs = []
    for now, key, value, factor in zip(r.unbind(2), k.unbind(2), v.unbind(2), decay, strict=True):
        outer = key[..., :, None] * value[..., None, :]
        outputs.append(now[:, :, None] @ torch.addcmul(state, bonus[:, :, None], outer))
        state = torch.addcmul(outer, factor[..., None], state)
    return torch.cat(outputs, dim=2)


def milliseconds(form: Form) -> float:
    """Processor time of forward and backward."""
    start = time.process_time()
    form().sum().backward()
    return 1000 * (time.process_time() - start)


def table(arguments: argparse.Namespace) -> str:
    """Milliseconds and ratios, by version and length."""
    lines = [f"{'':10}{'tokens':>8}{'ours, ms':>10}{'loop, ms':>10}{'loop / ours':>13}"]
    for length in arguments.lengths:
        for name, (ours, loop) in forms(arguments.batch, length, arguments.dim).items():
            torch.testing.assert_close(ours(), loop(), atol=1e-3, rtol=1e-3)
            rounds = [(milliseconds(ours), milliseconds(loop)) for _ in range(arguments.rounds + 1)][1:]
            own, other = (statistics.median(times) for times in zip(*rounds, strict=True))
            ratio = statistics.median(b / a for a, b in rounds)
            lines.append(f"{name:10}{length:8}{own:10.1f}{other:10.1f}{ratio:13.1f}")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and keep it with --save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help=f"write the table to {RESULT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    heading = f"{conditions('cpu')}\nbatch {arguments.batch}, {arguments.dim} channels, heads of {HEAD_DIM}, float32"
    text = f"{heading}\n\n{table(arguments)}\n"
    print(text)
    if arguments.save:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
