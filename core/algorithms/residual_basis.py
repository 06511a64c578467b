"""Another basis for a Transformer's residual stream, folded into the weights that write to the stream and read from it.

Papers: https://arxiv.org/abs/2401.15024 (SliceGPT, section 3), https://arxiv.org/abs/2404.00456 (QuaRot, section 4). A
norm without gain and shift commutes with a rotation, once the mean is taken off everything that writes to the stream.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import SpecError
from core.models.anatomy import anatomy
from core.models.residual import Residual
from core.models.resize import resize_
from core.nn.sliced import SlicedNorm
from core.subject import Subject

Turn = Callable[[Tensor], Tensor]  # float64 [..., width] into the new basis, [..., kept]


@torch.no_grad()
def turn_embeddings_(model: nn.Module, residual: Residual, turn: Turn) -> None:
    """Let the stream begin in the new basis."""
    for name, axis in residual.embeddings.items():
        embedding = model.get_parameter(name).double()
        if residual.centred:
            embedding = centred(embedding, axis)
        put_(model, name, turn(embedding.movedim(axis, -1)).movedim(-1, axis))


@torch.no_grad()
def turn_readers_(subject: Subject, residual: Residual, norm: str, linears: Sequence[str], turn: Turn) -> None:
    """Fold a norm's weights into the linears that read from it, which read the new basis from now on."""
    model = subject.model
    gain, shift, eps = _affine(model.get_submodule(norm))
    for name in dict.fromkeys(linears):
        linear = model.get_submodule(name)
        weight, bias = linear.get_parameter("weight").double(), linear._parameters["bias"]
        if shift is not None:
            offset = weight @ shift.double()
            put_(model, f"{name}.bias", offset if bias is None else offset + bias.double())
        put_(model, f"{name}.weight", turn(weight if gain is None else weight * gain.double()))
    subject.replace(norm, SlicedNorm(residual.width, eps))


def written_by(model: nn.Module, residual: Residual, name: str) -> dict[str, Tensor]:
    """The float64 weight [width, in] and bias [width] of a linear that writes to the stream, the mean taken off."""
    linear = model.get_submodule(name)
    written = {key: tensor.detach().double() for key, tensor in linear._parameters.items() if tensor is not None}
    return {key: centred(tensor, 0) for key, tensor in written.items()} if residual.centred else written


def centred(tensor: Tensor, axis: int) -> Tensor:
    """The tensor with its mean along `axis` taken off."""
    return tensor - tensor.mean(axis, keepdim=True)


@torch.no_grad()
def put_(model: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter a value that may have another shape; a missing bias is made."""
    resize_(model, {name: value.shape})
    model.get_parameter(name).copy_(value)


def require_head(subject: Subject) -> None:
    """Raise SpecError unless the head's weights are its own or can be made so."""
    if anatomy(subject.model).tied and tied_key(subject) is None:
        message = "has a head that must share the embedding's weights"
        raise SpecError.of("model.source", type(subject.model).__name__, message, "Choose another model.")


def untie_(subject: Subject) -> None:
    """Give the output head of the main model weights of its own, where it shares the embedding's."""
    known, key = anatomy(subject.model), tied_key(subject)
    if not known.tied:
        return
    assert key is not None
    for name in known.outputs:
        shared = subject.model.get_parameter(f"{name}.weight")
        subject.model.get_submodule(name).weight = nn.Parameter(shared.detach().clone())
    config = subject.configs["main"]
    if config["source"] == "hf":
        setattr(subject.model.config, key, False)
        subject.configs["main"] = {**config, "config": {**config["config"], key: False}}
    else:
        subject.configs["main"] = {**config, key: False}


def tied_key(subject: Subject) -> str | None:
    """What the config calls that the head shares the embedding's weights."""
    config = subject.configs["main"]
    if config.get("source") == "hf":
        return "tie_word_embeddings" if "tie_word_embeddings" in config["config"] else None
    return "tied" if "tied" in config else None


def _affine(norm: nn.Module) -> tuple[Tensor | None, Tensor | None, float]:
    """Gain, shift (None if it has none, or only zeros) and eps of a norm."""
    known: Any = norm
    shift = getattr(known, "bias", None)
    eps = known.eps if hasattr(known, "eps") else known.variance_epsilon
    return known.weight, None if shift is None or not shift.any() else shift, eps
