"""Depth pruning: take out the blocks that change the residual stream least, without any training.

Paper: https://arxiv.org/abs/2403.03853 (ShortGPT: block influence). Its rivals are strategies too: the contiguous
blocks across which the stream turns least, and the deepest ones (https://arxiv.org/abs/2403.17887), and random ones.
Here the angle is taken at each example's last token, as there, in causal models, and over all tokens in others.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy
from core.models.depth import check_blocks, keep_blocks_
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import REDUCED_TOKENS, ROTATED_STREAM, OneShot
from core.techniques.pruning.residual_stream import Trace

Strategy = Literal["block_influence", "contiguous", "deepest", "random"]


def dropped_blocks(
    strategy: Strategy, n: int, influence: Sequence[float], distances: Sequence[float], generator: torch.Generator
) -> list[int]:
    """The `n` blocks to take out, ascending.

    `influence` has an entry a block, `distances` one for each block that `n` can be taken out from on.
    """
    depth = len(influence)
    if strategy == "block_influence":
        return sorted(sorted(range(depth), key=lambda index: influence[index])[:n])
    if strategy == "random":
        return sorted(torch.randperm(depth, generator=generator)[:n].tolist())
    if strategy == "deepest":  # but the last, which readies the stream for the head
        return list(range(depth - 1 - n, depth - 1))
    start = min(range(len(distances)), key=lambda index: distances[index])
    return list(range(start, start + n))


class DepthPruning(OneShot):
    """Remove the blocks that change the residual stream least."""

    family = Family.PRUNING
    paper = "https://arxiv.org/abs/2403.03853"
    refuses = {
        ROTATED_STREAM: "Blocks pass on a rotated stream: put depth_pruning before the step that rotates it.",
        REDUCED_TOKENS: "The stream is compared token by token: put depth_pruning before the step that reduces tokens.",
    }

    pruning_ratio: float = Field(0.25, gt=0, lt=1, description="share of the blocks to remove; at least one is removed")
    n_dropped: int | None = Field(
        None,
        ge=1,
        description="number of blocks to remove, in place of pruning_ratio",
        json_schema_extra={"when_empty": "not set"},
    )
    strategy: Strategy = Field(
        "block_influence", description="choice of blocks: least influence, contiguous, deepest or random"
    )
    calibration_examples: int = Field(128, ge=1, le=65_536, description="number of examples to measure influence on")

    def label(self) -> str:
        """How much, and by what."""
        share = f"{self.n_dropped} blocks" if self.n_dropped is not None else f"{self.pruning_ratio:.0%} of blocks"
        return f"{share}, {self.strategy.replace('_', ' ')}"

    def check(self, subject: Subject) -> None:
        """The blocks are known, and some remain."""
        depth = check_blocks(subject.model, subject.configs["main"])
        if self._n(depth) >= depth:
            field = "pruning_ratio" if self.n_dropped is None else "n_dropped"
            raise SpecError.of(
                field, getattr(self, field), f"leaves none of the {depth} blocks", "Remove fewer blocks."
            )

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Measure, choose, and take out at once."""
        self.check(subject)
        known = anatomy(subject.model)
        assert known.blocks_list is not None
        n = self._n(len(known.chain))
        trace = Trace(len(known.chain), n, last_token_only=known.causal)
        examples = -(-self.calibration_examples // context.calibration_batch_size)
        for index, batch in enumerate(context.calibration(self.calibration_examples)):
            context.record.progress(index / examples, "block influence")
            with trace.watching(subject.model.get_submodule(known.blocks_list), batch):
                logits_of(subject.model, batch)
        influence, distances = trace.means()
        dropped = dropped_blocks(self.strategy, n, influence, distances, context.generator("depth_pruning"))
        subject.details["layers"] = [
            {
                "name": name,
                "block influence": influence[index],
                f"angle across {n}": distances[index] if index < len(distances) else None,
                "kept": index not in dropped,
            }
            for index, name in enumerate(known.chain)
        ]
        take_out_(subject, dropped)

    def _n(self, depth: int) -> int:
        return self.n_dropped if self.n_dropped is not None else max(1, round(self.pruning_ratio * depth))


def take_out_(subject: Subject, dropped: Sequence[int]) -> None:
    """Take these blocks out of the main model; the masks of the others go along with them."""
    blocks = anatomy(subject.model).chain
    kept = [index for index in range(len(blocks)) if index not in dropped]
    subject.configs["main"] = keep_blocks_(subject.model, subject.configs["main"], kept)
    new_names = {f"main.{blocks[old]}.": f"main.{blocks[new]}." for new, old in enumerate(kept)}
    constraints = {}
    for fqn, constraint in subject.constraints.items():
        block = next((f"main.{name}." for name in blocks if fqn.startswith(f"main.{name}.")), None)
        if block is None:
            constraints[fqn] = constraint
        elif block in new_names:
            constraints[new_names[block] + fqn.removeprefix(block)] = constraint
    subject.constraints = constraints
