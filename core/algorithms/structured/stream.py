"""The channels of the residual stream as units: each goes through every embedding, norm and block of the network.

A norm takes its statistics over the channels that are left, so that a network with some of them cut out is the
whole one with those written as zero and left out of every norm.
"""

from torch import nn

from core.algorithms.structured.units import Slice, Units
from core.errors import SpecError
from core.models.anatomy import Anatomy, anatomy
from core.models.residual import residual

KIND = "width"


def stream_units(model: nn.Module) -> Units:
    """Every place of every channel; raises SpecError for a model whose stream is not known.

    There is no one layer that a channel passes through: `gate` is empty.
    """
    known = anatomy(model)
    known.require("blocks' parts")
    slices = _ends(model, known)
    for block in known.blocks:
        slices += [Slice(f"{name}.weight", 1) for group in (block.groups[0], block.groups[2]) for name in group]
        slices += [Slice(name, 0) for layer in (block.o, block.down) for name in _owned(model, layer)]
        slices += [Slice(name, 0) for layer in (block.norm1, block.norm2) for name in _owned(model, layer)]
    slices = list({(part.parameter, part.dim): part for part in slices}.values())  # GPT-2: q, k and v are one
    width = model.get_parameter(f"{known.blocks[0].q}.weight").shape[1]
    for part in slices:
        if model.get_parameter(part.parameter).shape[part.dim] != width:
            raise _refused(known, f"has a layer whose width differs from the residual stream's: {part.parameter}")
    return Units("residual stream", KIND, width, "", tuple(slices))


def norms_of(model: nn.Module) -> list[str]:
    """Full names of the norms that the stream passes through."""
    known = anatomy(model)
    names = {part.parameter.rpartition(".")[0] for part in stream_units(model).slices if part.dim == 0}
    blocks = {name for block in known.blocks for name in block.linears}
    return [name for name, module in model.named_modules() if name in names - blocks and _is_norm(module)]


def beginning(model: nn.Module) -> list[Slice]:
    """The parameters by which the stream that enters the first block is linear, and the axis of each that is its own.

    The embeddings; where blocks have their norms behind them, the norm of the embeddings.
    """
    known = anatomy(model)
    if known.blocks[0].pre_norm:
        return _embeddings(model)
    return [part for part in _post_norm_embeddings(model, known) if part.dim == 0]


def tied_heads(model: nn.Module) -> list[str]:
    """The heads that read the stream through an embedding's weight."""
    known = anatomy(model)
    begin = {id(model.get_parameter(part.parameter)) for part in beginning(model)}
    return [name for name in known.outputs if id(model.get_parameter(f"{name}.weight")) in begin]


def _embeddings(model: nn.Module) -> list[Slice]:
    named = residual(model).embeddings.items()
    return [Slice(name, axis % model.get_parameter(name).dim()) for name, axis in named]


def _ends(model: nn.Module, known: Anatomy) -> list[Slice]:
    """What the stream begins and ends with; a parameter that is shared between both is named once."""
    if known.blocks[0].pre_norm:
        stream = residual(model)
        slices = _embeddings(model) + [Slice(name, 0) for name in _owned(model, stream.norm)]
        heads = stream.heads
    else:
        slices, heads = _post_norm_embeddings(model, known), _readers(model, known)
    listed = {id(model.get_parameter(part.parameter)) for part in slices}
    heads = [name for name in heads if id(model.get_parameter(f"{name}.weight")) not in listed]
    return slices + [Slice(f"{name}.weight", 1) for name in heads]


def _post_norm_embeddings(model: nn.Module, known: Anatomy) -> list[Slice]:
    later = (f"{known.blocks_list}.", *(f"{name}." for name in (*known.outputs, *_readers(model, known))))
    slices = []
    for name, _ in model.named_parameters(remove_duplicate=False):
        owner = model.get_submodule(name.rpartition(".")[0])
        if name.startswith(later):
            continue
        if not isinstance(owner, nn.Embedding) and not _is_norm(owner):
            raise _refused(known, f"has other layers than embeddings before its blocks: {name}")
        slices.append(Slice(name, 1 if isinstance(owner, nn.Embedding) else 0))
    return slices


def _readers(model: nn.Module, known: Anatomy) -> list[str]:
    """The linears that read the end of the stream: BERT's pooler, else the heads."""
    poolers = [name for name, _ in model.named_modules() if name.endswith("pooler.dense")]
    return poolers or known.outputs


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")


def _owned(model: nn.Module, layer: str) -> list[str]:
    return [f"{layer}.{name}" for name, _ in model.get_submodule(layer).named_parameters()]


def _refused(known: Anatomy, reason: str) -> SpecError:
    remedy = "Choose a built-in Transformer or a LLaMA-like, OPT, BERT or ViT model, or do not cut the residual stream."
    return SpecError.of("model.source", known.architecture, reason, remedy)
