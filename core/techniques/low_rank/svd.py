"""SVD: every linear layer becomes the nearest product of two thin ones.

Paper: https://doi.org/10.1007/BF02288367 (Eckart and Young, 1936). Nearest in the weights' own norm, without data. With
`ranks: measured`, calibration data decide how as many weights are shared out among the layers (Puzzletron,
https://arxiv.org/abs/2411.19146). A layer whose two factors would not be smaller is left alone. Experts are factored
one by one, all of a layer's with the same rank.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import prunable
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.low_rank import LowRankExpertLinear
from core.nn.low_rank_linear import LowRankLinear
from core.nn.replacement import Replacement
from core.subject import Subject
from core.technique import INTEGER_CODES, LOW_RANK, MASK, OneShot
from core.techniques.low_rank.measured_ranks import measured_ranks

UNDOES_MASKS = "Factoring makes pruned weights nonzero again: put svd before the step that prunes."


def rank_for(kept: float, in_features: int, out_features: int) -> int:
    """Largest rank whose factors have at most `kept` times the weights of the matrix; at least 1."""
    return max(1, int(kept * in_features * out_features / (in_features + out_features)))


def saves(rank: int, in_features: int, out_features: int) -> bool:
    """Whether the factors have fewer weights than the matrix."""
    return rank * (in_features + out_features) < in_features * out_features


class Svd(OneShot):
    """Factor every linear layer into two low-rank ones by singular value decomposition."""

    family = Family.LOW_RANK
    paper = "https://doi.org/10.1007/BF02288367"
    leaves = frozenset({LOW_RANK})
    refuses = {
        INTEGER_CODES: "Integer codes cannot be factored: put svd before the step that quantizes.",
        MASK: UNDOES_MASKS,
    }

    kept: float = Field(0.5, gt=0, lt=1, description="parameters of the factors as a share of each layer's weights")
    rank: int | None = Field(
        None, ge=1, description="rank of every layer, in place of `kept`", json_schema_extra={"when_empty": "not set"}
    )

    ranks: Literal["equal", "measured"] = Field(
        "equal",
        description="equal: the same share of every layer; measured: by what factoring each layer alone does to the "
        "predictions, with `kept` of all layers' weights together",
    )
    calibration_examples: int = Field(
        32, ge=1, le=100_000, description="number of calibration examples, for ranks: measured"
    )

    def label(self) -> str:
        """The rank, or the share of weights kept."""
        share = f"{100 * self.kept:g} %" + (" measured" if self.ranks == "measured" else "")
        return f"rank {self.rank}" if self.rank is not None else share

    def check(self, subject: Subject) -> None:
        """Some layer gets smaller, and none of them is masked."""
        if self.ranks == "measured" and self.rank is not None:
            message = "gives every layer the same rank, so that there is nothing to measure"
            raise SpecError.of("rank", self.rank, message, "Set kept in its place, or ranks: equal.")
        ranks = self._ranks(subject.model)
        masked = next((name for name in ranks if subject.mask(f"{name}.weight") is not None), None)
        if masked is not None:
            raise SpecError.of("svd", masked, "is pruned", UNDOES_MASKS)
        if not ranks:
            field, value = ("rank", self.rank) if self.rank is not None else ("kept", self.kept)
            raise SpecError.of(field, value, "does not reduce any layer of this model", "Choose a smaller one.")

    @torch.no_grad()
    def apply(self, subject: Subject, context: Context) -> None:
        """Swap in the factors."""
        self.check(subject)
        ranks = self._ranks(subject.model)
        if self.ranks == "measured":
            equal = {name: ranks.get(name) for name in prunable(subject.model, (nn.Linear, ExpertLinear))}
            ranks = measured_ranks(subject, context, equal, self.kept, self.calibration_examples)
        rows = []
        for index, (name, rank) in enumerate(ranks.items()):
            context.record.progress(index / len(ranks), name)
            linear = subject.model.get_submodule(name)
            assert isinstance(linear, (nn.Linear, ExpertLinear))
            layer: Replacement
            if isinstance(linear, ExpertLinear):
                layer = LowRankExpertLinear.of(linear, rank)
            else:
                layer = LowRankLinear.from_linear(linear, rank)
            subject.replace(name, layer)
            error = _relative_error(linear, layer)
            rows.append({"name": name, "shape": list(linear.weight.shape), "rank": rank, "relative error": error})
        subject.details["layers"] = rows

    def _ranks(self, model: nn.Module) -> dict[str, int]:
        ranks = {}
        for name in prunable(model, (nn.Linear, ExpertLinear)):
            linear = model.get_submodule(name)
            assert isinstance(linear, (nn.Linear, ExpertLinear))
            sizes = linear.in_features, linear.out_features
            rank = self.rank if self.rank is not None else rank_for(self.kept, *sizes)
            if saves(rank, *sizes):
                ranks[name] = rank
        return ranks


def _relative_error(linear: nn.Linear | ExpertLinear, layer: nn.Module) -> float:
    """How far the factors' product is from the weight, as a share of its norm; of all experts together."""
    n_matrices = linear.experts if isinstance(linear, ExpertLinear) else 1
    matrices = (layer.get_parameter("up.weight"), layer.get_parameter("down.weight"), linear.weight)
    up, down, weight = (matrix.float().unflatten(0, (n_matrices, -1)) for matrix in matrices)
    return float((weight - up @ down).norm() / weight.norm().clamp(min=1e-30))
