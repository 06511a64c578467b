"""The timed work, whose energy is also measured: a forward pass or one decoded token."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from core.models.batches import Batch
from core.runtimes.base import Runner
from core.runtimes.decode import Decoder


def _nothing() -> None:
    """A preparation that does nothing."""


@dataclass(frozen=True)
class Work:
    """A call on a device; if `n_calls` is given, exactly that many calls follow each preparation."""

    call: Callable[[], object]
    device: torch.device
    prepare: Callable[[], object] = _nothing  # neither timed nor counted
    n_calls: int | None = None

    def repeat(self, n_calls: int) -> None:
        """Call this often."""
        for _ in range(n_calls):
            self.call()

    def finish(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def forward_work(runner: Runner, batch: Batch) -> Work:
    """Forward passes of a placed batch."""
    return Work(lambda: runner(batch), runner.device)


def decode_work(decoder: Decoder, batch: Batch, n_tokens: int, device: torch.device) -> Work:
    """The `n_tokens` after the prompt, for the whole batch."""
    return Work(decoder.step, device, prepare=lambda: decoder.prefill(batch, n_tokens), n_calls=n_tokens)
