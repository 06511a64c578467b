"""Rotation: multiply activations by Hadamard matrices, so that none of their channels holds outliers.

Papers: https://arxiv.org/abs/2404.00456 (QuaRot), https://arxiv.org/abs/2405.16406 (SpinQuant; names R1 to R4). The
model computes the same function, and a quantization step after this one loses less. Norms are folded into the layers
after them, LayerNorm becomes RMSNorm, and a tied head is untied. Here Vision Transformers and text classifiers too. The
matrices are Hadamard's and not trained; the residual stream's has random signs. R3, the rotation of queries and keys,
matters only for a quantized cache: it is `rotate` of kv_cache_quantization.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from core.algorithms.residual_basis import put_, require_head, turn_embeddings_, turn_readers_, untie_, written_by
from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.models.anatomy import anatomy
from core.models.block_names import BlockNames
from core.models.residual import Residual, residual
from core.nn.hadamard import Hadamard
from core.nn.rotated_input import RotatedInput
from core.subject import Subject
from core.technique import INTEGER_CODES, LOW_RANK, MASK, REDUCED_TOKENS, ROTATED_INPUTS, ROTATED_STREAM, OneShot
from core.techniques.parts import (
    NEEDS_BOTH_HALVES,
    NEEDS_PLAIN_HEAD,
)


class Rotation(OneShot):
    """Rotate activations by Hadamard matrices to spread outliers. Put it before a step that quantizes."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2404.00456"
    compresses = False
    leaves_with = {
        "residual_stream=True": frozenset({ROTATED_STREAM}),
        "ffn=True": frozenset({ROTATED_INPUTS}),
    }
    refuses = {
        **dict.fromkeys(NEEDS_BOTH_HALVES, "Blocks of other parts are not rotated: remove one of the two steps."),
        **NEEDS_PLAIN_HEAD,
        REDUCED_TOKENS: "Blocks that reduce tokens call their parts directly: remove one of the two steps.",
        MASK: "Rotating makes pruned weights nonzero again: put rotation before the step that prunes weights.",
        INTEGER_CODES: "Integer codes cannot be rotated: put rotation before the step that quantizes.",
        LOW_RANK: "Factors are not rotated: put rotation before the step that factors.",
        ROTATED_STREAM: "The residual stream is rotated already: remove one of the two steps.",
        ROTATED_INPUTS: "Layers rotate their inputs already: remove one of the two steps.",
    }

    residual_stream: bool = Field(True, description="R1: rotate the residual stream; adds no work to the model")
    values: bool = Field(True, description="R2: rotate the values of each attention head; adds no work to the model")
    ffn: bool = Field(
        True, description="R4: rotate the input of each feed-forward network's last layer, at every forward pass"
    )

    def label(self) -> str:
        """The rotations."""
        chosen = {"R1": self.residual_stream, "R2": self.values, "R4": self.ffn}
        return " ".join(name for name, is_on in chosen.items() if is_on)

    def check(self, subject: Subject) -> None:
        """The parts to rotate are known, plain linear layers without masks."""
        if not (self.residual_stream or self.values or self.ffn):
            raise SpecError.of("residual_stream", False, "leaves nothing to rotate", "Turn on one of the rotations.")
        masked = next(iter(subject.constraints), None)
        if masked is not None:
            raise SpecError.of("rotation", masked.removeprefix("main."), "is pruned", self.refuses[MASK])
        known = anatomy(subject.model)
        known.require("blocks' parts")
        known.require("heads")
        for block in known.blocks:
            for name in self._rotated(block):
                _require_plain(subject.model, name)
        if self.residual_stream:
            _require_stream(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Fold the rotations into the weights, and swap in the layers that rotate their inputs."""
        self.check(subject)
        known = anatomy(subject.model)
        head_dim = known.head_dim
        assert head_dim is not None
        rows: list[dict[str, Any]] = []
        if self.residual_stream:
            untie_(subject)
            size = _rotate_stream(subject, context, residual(subject.model))
            rows.append({"name": "residual stream", "rotation": "R1", "matrix": size})
        for index, block in enumerate(known.blocks):
            context.record.progress(index / len(known.blocks), block.name)
            if self.values:
                rows.append({"name": block.v, "rotation": "R2", "matrix": _rotate_values(subject, block, head_dim)})
            if self.ffn:
                rows.append({"name": block.down, "rotation": "R4", "matrix": _rotate_input(subject, block.down)})
        subject.details["layers"] = rows

    def _rotated(self, block: BlockNames) -> list[str]:
        return [*([block.v, block.o] if self.values else []), *([block.down] if self.ffn else [])]


@torch.no_grad()
def _rotate_stream(subject: Subject, context: Context, stream: Residual) -> str:
    """R1: whatever writes to the stream writes x D H, with random signs D; whatever reads from it undoes that."""
    model = subject.model
    device = model.get_parameter(next(iter(stream.embeddings))).device
    hadamard = Hadamard(stream.width).to(device)
    signs = torch.randint(0, 2, (stream.width,), generator=context.generator("signs")).to(device).double() * 2 - 1

    def turn(x: Tensor) -> Tensor:
        return hadamard(x * signs)

    turn_embeddings_(model, stream, turn)
    for block in stream.blocks:
        turn_readers_(subject, stream, block.norm1, block.groups[0], turn)
        turn_readers_(subject, stream, block.norm2, block.groups[2], turn)
        for name in (block.o, block.down):
            for key, tensor in written_by(model, stream, name).items():
                put_(model, f"{name}.{key}", turn(tensor.movedim(0, -1)).movedim(-1, 0))
    turn_readers_(subject, stream, stream.norm, stream.heads, turn)
    return _size(hadamard)


@torch.no_grad()
def _rotate_values(subject: Subject, block: BlockNames, head_dim: int) -> str:
    """R2: the values v of each head become v H, and the output layer undoes that on the mixed values."""
    values, output = subject.model.get_submodule(block.v), subject.model.get_submodule(block.o)
    assert isinstance(values, nn.Linear)
    assert isinstance(output, nn.Linear)
    hadamard = Hadamard(head_dim).to(output.weight.device)
    for tensor in (values.weight, values.bias):
        if tensor is not None:
            own = tensor[len(tensor) // 3 * 2 :] if block.fused else tensor  # of q, k and v the last third
            own.copy_(_in_heads(hadamard, own.double().movedim(0, -1)).movedim(-1, 0))
    output.weight.copy_(_in_heads(hadamard, output.weight.double()))
    return _size(hadamard)


@torch.no_grad()
def _rotate_input(subject: Subject, name: str) -> str:
    """R4: the layer gets x H, and its weight takes that back."""
    linear = subject.model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    rotated = RotatedInput(linear.in_features).to(linear.weight.device).train(linear.training)
    linear.weight.copy_(rotated.rotation(linear.weight.double()))
    subject.replace(name, rotated)
    return _size(rotated.rotation)


def _in_heads(hadamard: Hadamard, x: Tensor) -> Tensor:
    """Each head's channels of x [..., heads * head_dim] rotated."""
    return hadamard(x.unflatten(-1, (x.shape[-1] // hadamard.size, hadamard.size))).flatten(-2)


def _size(hadamard: Hadamard) -> str:
    """The composition of the matrix, for people: 12 x 64."""
    blocks, paley, sylvester = hadamard.factors
    composed = " x ".join(str(n) for n in (paley, sylvester) if n > 1) or "1"
    return f"{blocks} blocks of {composed}" if blocks > 1 else composed


def _require_stream(subject: Subject) -> None:
    try:
        residual(subject.model)
    except SpecError as error:
        reason = error.problems[0].message
        raise SpecError.of("residual_stream", True, f"this model {reason}", "Set residual_stream: false.") from error
    require_head(subject)


def _require_plain(model: nn.Module, name: str) -> None:
    kind = type(model.get_submodule(name))
    if kind is not nn.Linear:
        remedy = "Put rotation before the step that factors, packs or quantizes the layers."
        raise SpecError.of("model", name, f"is a {kind.__name__}, which cannot be rotated", remedy)
