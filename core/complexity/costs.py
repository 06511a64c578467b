"""What one step of a model costs at one length: the work to be timed, memory, state and operations."""

import copy
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from core.complexity.subjects import Candidate, build
from core.measure.peak import measure_peaks
from core.measure.work import Work

DECODED = 4  # tokens at once
CPU = torch.device("cpu")


def tokens(length: int) -> Tensor:
    """One sequence of random bytes [1, length]."""
    return torch.randint(256, (1, length), generator=torch.Generator().manual_seed(length))


def train_step(model: nn.Module, input_ids: Tensor) -> None:
    """Forward and backward pass; the optimizer's step does not depend on the length."""
    model.train()
    logits = model(input_ids)
    labels = input_ids.roll(-1, 1).flatten() if logits.dim() == 3 else input_ids[:, 0] % logits.shape[1]
    loss = F.cross_entropy(logits.flatten(0, -2), labels)
    for module in model.modules():
        publish: Any = getattr(module, "aux_losses", None)
        if publish is not None:
            loss = loss + sum(publish().values())
    loss.backward()
    model.zero_grad(set_to_none=True)  # many models wait their turn


def train_work(model: nn.Module, length: int) -> Work:
    """Training steps, without the optimizer."""
    input_ids = tokens(length)
    return Work(lambda: train_step(model, input_ids), CPU, n_calls=1)


def forward_work(model: nn.Module, length: int) -> Work:
    """Forward passes in evaluation mode."""
    input_ids = tokens(length)

    @torch.inference_mode()
    def forward() -> None:
        model(input_ids)

    return Work(forward, CPU, prepare=model.eval, n_calls=1)


@torch.inference_mode()
def filled_cache(model: Any, length: int) -> Any:
    """What decoding keeps of all but the last DECODED of `length` tokens."""
    made = model.eval().make_cache(length)
    model(tokens(length)[:, :-DECODED], cache=made)
    return made


def decode_work(model: nn.Module, filled: Any) -> Work:
    """The last DECODED tokens, each by itself."""
    one = tokens(1)
    current: list[Any] = []

    def prepare() -> None:
        model.eval()
        current[:] = [copy.deepcopy(filled)]

    @torch.inference_mode()
    def step() -> None:
        model(one, cache=current[0])

    return Work(step, CPU, prepare=prepare, n_calls=DECODED)


def state_bytes(state: object) -> int:
    """Bytes of all tensors that are reachable from a cache, each storage once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in _tensors(state)}
    return sum(storages.values())


def _tensors(state: object) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)
    elif hasattr(state, "__dict__"):
        yield from _tensors(vars(state))


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def operations(model: nn.Module, length: int) -> int:
    """Calls of PyTorch's operators in a training step: those that must wait for one another are among them."""
    with _Counter() as counter:
        train_step(model, tokens(length))
    return counter.calls


def train_bytes(candidate: Candidate, lengths: Sequence[int]) -> list[float]:
    """Peak memory of a training step in addition to the model, at each of ascending lengths, in a fresh process."""
    found = measure_peaks(_step_of_kept_model, [(candidate, length) for length in lengths])
    return [each.peak_bytes for each in found]


@lru_cache(maxsize=1)
def _kept(candidate: Candidate, length: int) -> nn.Module:
    return build(candidate, length)


def _step_of_kept_model(candidate: Candidate, length: int) -> None:
    model = _kept(candidate, length)
    train_step(model, tokens(length))
