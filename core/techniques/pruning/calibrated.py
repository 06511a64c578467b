"""Settings that pruning with calibration data shares: how many weights go, in which structure, by how many examples."""

from typing import Literal

from pydantic import Field

from core.algorithms.masks import check_pattern, divisible_weights, prunable_weights
from core.subject import Subject
from core.technique import OneShot


class CalibratedPruning(OneShot):
    """Base of one-shot pruning, unstructured or n:m, that looks at the layers' inputs."""

    structure: Literal["unstructured", "n:m"] = Field("unstructured", description="pattern of the zeros")
    sparsity: float = Field(0.5, ge=0, lt=1, description="share of weights to set to zero, for unstructured")
    n: int = Field(2, ge=1, le=31, description="weights kept per group, for n:m")
    m: int = Field(4, ge=2, le=32, description="consecutive input channels per group, for n:m")
    indivisible: Literal["refuse", "skip"] = Field(
        "refuse", description="how to treat a layer whose input channels m does not divide"
    )
    calibration_examples: int = Field(128, ge=1, le=100_000, description="number of calibration examples")

    def label(self) -> str:
        """The share or the pattern."""
        return f"{100 * self.sparsity:g} %" if self.structure == "unstructured" else f"{self.n}:{self.m}"

    def check(self, subject: Subject) -> None:
        """The model has weights to prune; n is below m, and m divides every layer's input channels."""
        if self.structure == "n:m":
            check_pattern(subject.model, self.n, self.m, self.indivisible)
        prunable_weights(subject.model)

    def layers(self, subject: Subject) -> list[str]:
        """Full names of the layers that are pruned."""
        model = subject.model
        weights = divisible_weights(model, self.m) if self.structure == "n:m" else prunable_weights(model)
        return [name.removesuffix(".weight") for name in weights]
