"""A model's residual stream rotated into principal components and cut, signal after signal.

Paper: https://arxiv.org/abs/2401.15024 (SliceGPT, section 3).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from core.algorithms.residual_basis import centred, put_, turn_embeddings_, turn_readers_, written_by
from core.calibration.hidden_states import HiddenStates
from core.models.block_names import BlockNames
from core.models.residual import FEED_FORWARD, Residual, dropout_of
from core.nn.sliced import SlicedBlock
from core.subject import Subject
from core.techniques.pruning.residual_stream import real_tokens

DAMPING = 0.01  # of the mean of the covariance's diagonal
Run = Callable[[Tensor, int], Tensor]  # the stream [B, T, kept] of a batch, and its index -> what is added to it


@dataclass(frozen=True)
class Basis:
    """The directions [width, kept] of one signal that are kept, and their share of its variance."""

    name: str  # of the norm that reads the signal
    directions: Tensor
    variance: float


def principal_directions(covariance: Tensor, kept: int) -> tuple[Tensor, float]:
    """Eigenvectors [width, kept] of the largest eigenvalues, descending, and their share of the sum of all.

    `covariance` is the float64 sum of x x^T over tokens. The damping is the paper's; it turns no direction, and keeps
    the matrix away from singular.
    """
    damping = DAMPING * covariance.diagonal().mean()
    values, vectors = torch.linalg.eigh(covariance + damping * torch.eye(len(covariance)).to(covariance))
    variance = (values - damping).clamp(min=0).flip(0)
    share = variance[:kept].sum() / variance.sum().clamp(min=1e-300)
    return vectors.flip(1)[:, :kept].contiguous(), float(share)


class Slicing:
    """Slices one model. Everything before a signal is sliced already when its directions are chosen."""

    def __init__(
        self,
        subject: Subject,
        residual: Residual,
        kept: int,
        batches: Sequence[dict[str, Tensor]],
        device: torch.device,
    ):
        self.subject, self.model, self.device = subject, subject.model, device
        self.residual, self.kept = residual, kept
        self.hidden = HiddenStates(self.model, batches, {block.name: None for block in residual.blocks}, device)
        if residual.centred:
            self.hidden.states = [centred(x, -1) for x in self.hidden.states]
        self.tokens = [
            real_tokens(x, batch.get("attention_mask")).cpu()
            for x, batch in zip(self.hidden.states, batches, strict=True)
        ]

    @property
    def n_tokens(self) -> int:
        """Tokens that directions are chosen on."""
        return sum(int(tokens.sum()) for tokens in self.tokens)

    @torch.no_grad()
    def run(self) -> Iterator[Basis]:
        """Slice in place, from the embeddings to the heads; the bases as they are chosen."""
        blocks = self.residual.blocks
        basis = self._choose(blocks[0].norm1)
        turn_embeddings_(self.model, self.residual, _into(basis.directions))
        self._turn(basis.directions)
        yield basis
        for index, block in enumerate(blocks):
            sliced = self._swap(block)
            after = blocks[index + 1].norm1 if index + 1 < len(blocks) else self.residual.norm
            mix, feed = self._mix(sliced, block), lambda x, _, feed=sliced.feed: feed(x)
            turn_readers_(self.subject, self.residual, block.norm1, block.groups[0], _into(basis.directions))
            basis = self._write(mix, block.o, sliced.skip1, basis.directions, block.norm2)
            yield basis
            turn_readers_(self.subject, self.residual, block.norm2, block.groups[2], _into(basis.directions))
            basis = self._write(feed, block.down, sliced.skip2, basis.directions, after)
            yield basis
        turn_readers_(self.subject, self.residual, self.residual.norm, self.residual.heads, _into(basis.directions))

    def _swap(self, block: BlockNames) -> SlicedBlock:
        original = self.model.get_submodule(block.name)
        names = {"norm1": block.norm1, "attention": block.attention, "norm2": block.norm2}
        parts = {part: [name.removeprefix(f"{block.name}.")] for part, name in names.items()}
        parts["ffn"] = FEED_FORWARD[type(original).__name__]
        sliced = SlicedBlock(parts, self.kept, dropout_of(original))
        weight = self.model.get_parameter(f"{block.o}.weight")
        self.subject.replace(block.name, sliced.to(weight.device, weight.dtype).train(original.training))
        return sliced

    def _mix(self, sliced: SlicedBlock, block: BlockNames) -> Run:
        def run(x: Tensor, index: int) -> Tensor:
            arguments = self.hidden.arguments[index][block.name]
            args, kwargs = tree_map_only(Tensor, lambda t: t.to(self.device), arguments)
            return sliced.mix(x, *args, **kwargs)

        return run

    def _write(self, run: Run, name: str, skip: nn.Parameter, directions: Tensor, reader: str) -> Basis:
        """Add what a sublayer writes to the stream, choose the next basis, and let the sublayer write into it."""
        written = written_by(self.model, self.residual, name)
        for key, tensor in written.items():
            put_(self.model, f"{name}.{key}", tensor)
        for index, x in enumerate(self.hidden.states):
            x = x.to(self.device)
            self.hidden.states[index] = (x @ directions.T.to(x) + run(x, index)).cpu()
        basis = self._choose(reader)
        for key, tensor in written.items():
            put_(self.model, f"{name}.{key}", basis.directions.T @ tensor)
        skip.copy_(directions.T @ basis.directions)
        self._turn(basis.directions)
        return basis

    def _choose(self, reader: str) -> Basis:
        """The principal directions of the signal as it is now, padding left out."""
        covariance = torch.zeros(self.residual.width, self.residual.width, dtype=torch.float64, device=self.device)
        for x, tokens in zip(self.hidden.states, self.tokens, strict=True):
            rows = x[tokens].to(self.device).double()
            covariance += rows.T @ rows
        return Basis(reader, *principal_directions(covariance, self.kept))

    def _turn(self, directions: Tensor) -> None:
        for index, x in enumerate(self.hidden.states):
            x = x.to(self.device)
            self.hidden.states[index] = (x @ directions.to(x)).cpu()


def _into(directions: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: x @ directions
