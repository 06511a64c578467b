"""A layer's weight as matrices [groups, rows, d], and what its inputs are as vectors [groups, n, d] for them.

A linear layer is one matrix, experts' is one an expert (`OfExperts` has their inputs). A convolution is one for each of
its groups, on the unfolded input: columns run over the kernel's places and, innermost, over the input channels. So m
consecutive columns are m consecutive input channels at one place, as in `core.nn.packing.rows_of`.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.experts.linear import ExpertLinear


def matrices_of(weight: Tensor, groups: int = 1) -> Tensor:
    """A linear's weight [K, C] or a convolution's [K, C, R, S] as [groups, K / groups, R * S * C]."""
    columns = weight if weight.dim() == 2 else weight.movedim(1, -1).flatten(1)
    return columns.unflatten(0, (groups, -1))


def weight_from_matrices(matrices: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of this shape from its matrices: the inverse of `matrices_of`."""
    rows = matrices.flatten(0, 1)
    if len(shape) == 2:
        return rows
    outputs, inputs, *kernel = shape
    return rows.view(outputs, *kernel, inputs).movedim(-1, 1).contiguous()


def groups_of(layer: nn.Module) -> int:
    """How many matrices a layer's weight is."""
    if isinstance(layer, ExpertLinear):
        return layer.experts
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def input_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """What a layer's matrices are multiplied with: [..., in] or [B, C, H, W] as [groups, n, d].

    Convolutions are those padded with zeros; all other layers are linear ones, packed or not.
    """
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(1, -1, x.shape[-1])
    height, width = layer.kernel_size
    patches = F.unfold(F.pad(x, _padding(layer)), (height, width), dilation=layer.dilation, stride=layer.stride)
    split = patches.unflatten(1, (layer.groups, -1, height * width))  # [B, groups, C / groups, R * S, n_places]
    return split.permute(1, 0, 4, 3, 2).flatten(3).flatten(1, 2)


def geometry(layer: nn.Module) -> tuple[object, ...]:
    """Equal for two layers exactly where `input_rows` of the same input are equal."""
    if isinstance(layer, nn.Conv2d):
        return (layer.kernel_size, _padding(layer), layer.stride, layer.dilation, layer.groups)
    return ()


def _padding(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Left, right, top and bottom."""
    if isinstance(conv.padding, str):
        is_same = conv.padding == "same"
        rows, columns = (is_same * d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2
    vertical, horizontal = conv.padding
    return horizontal, horizontal, vertical, vertical
