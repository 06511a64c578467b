"""Shrinks layers in place: the kept entries of a tensor, and the size attributes of its module.

Structured pruning removes rows and columns of ordinary modules. They keep their type (nn.Linear, nn.LayerNorm,
...), so every later step can handle them; an artifact lists the shapes that differ from the bare model's.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from core.models.meta import tied_parameters


def select_(model: nn.Module, name: str, dim: int, kept: Tensor) -> None:
    """Keep only the entries `kept` (indices, in their order) along `dim` of the parameter or buffer `name`.

    A parameter that other modules share stays shared.
    """
    owner, attribute = _owner(model, name)
    tensor = getattr(owner, attribute)
    with torch.no_grad():
        _put(model, name, tensor.index_select(dim, kept.to(tensor.device)).contiguous())


def resize_(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Change the shapes of these parameters and buffers; their values are undefined afterwards.

    A bias that a layer was made without becomes one of its parameters.
    """
    for name, shape in shapes.items():
        owner, attribute = _owner(model, name)
        like = owner.get_parameter("weight") if _lacks(owner, attribute) else getattr(owner, attribute)
        _put(model, name, like.new_empty(tuple(shape)))
    for module in model.modules():  # also where what was swapped in has sizes of its own
        _say_heads(module)


def changed_shapes(model: nn.Module, bare: nn.Module) -> dict[str, list[int]]:
    """Shapes of the tensors of `model` that differ from those of the same name in `bare`, or that it lacks."""
    expected = {name: tensor.shape for name, tensor in _tensors(bare)}
    return {
        name: list(t.shape)
        for name, t in _tensors(model)
        if (t.shape != expected[name] if name in expected else _lacks(*_owner(bare, name)))
    }


def _lacks(owner: nn.Module, attribute: str) -> bool:
    """Whether the module has a place for this parameter, and none in it (a linear layer without a bias)."""
    return attribute in owner._parameters and owner._parameters[attribute] is None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the state, those that share memory under each of their names."""
    yield from model.state_dict(keep_vars=True).items()


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, attribute = _owner(model, name)
    old = getattr(owner, attribute)
    if isinstance(old, nn.Parameter) or _lacks(owner, attribute):
        tensor = nn.Parameter(tensor, requires_grad=old.requires_grad if old is not None else True)
    tied = next((group for group in tied_parameters(model) if name in group), [name])
    for other in tied:
        owner, attribute = _owner(model, other)
        setattr(owner, attribute, tensor)
        _say_sizes(owner)
        _say_heads(model.get_submodule(other.rpartition(".")[0].rpartition(".")[0]))


def _say_sizes(module: nn.Module) -> None:
    """Set a module's attributes of size to what its weight has."""
    weight = getattr(module, "weight", None)
    if weight is None:
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = weight.shape[0]


def _say_heads(attention: nn.Module) -> None:
    """Attentions of transformers that split their projections by a stored number of heads (OPT's does)."""
    query = getattr(attention, "q_proj", getattr(attention, "query", None))
    head_dim = getattr(attention, "head_dim", getattr(attention, "attention_head_size", None))
    width = getattr(query, "out_features", None)
    if width is None or head_dim is None:
        return
    sizes = {"num_heads": width // head_dim, "all_head_size": width}
    for name, size in {**sizes, "num_attention_heads": sizes["num_heads"]}.items():
        if hasattr(attention, name):
            setattr(attention, name, size)
