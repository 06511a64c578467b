"""Float32 master weights: a 16-bit model is float32 for a while, and gets its own dtypes back afterwards.

Paper: https://arxiv.org/abs/1710.03740 (section 3.1). In 16 bits an update far below the weight is rounded away.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.errors import TechniqueFailure
from core.nn.integer_linear import IntegerLinear
from core.nn.precision import HALF_DTYPES, float_dtype


class MasterWeights:
    """Turns the 16-bit tensors that a model saves into float32 ones; `restore` rounds them back.

    What is added to the model meanwhile gets the model's own dtype. Names, ties and gradients' owners stay. The scales
    of integer layers are never converted: the codes were chosen for them.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.dtype = float_dtype(model)
        self.dtypes = {name: tensor.dtype for name, tensor in _saved(model)}
        self._convert({name: torch.float32 for name, dtype in self.dtypes.items() if dtype in HALF_DTYPES})

    @torch.no_grad()
    def restore(self) -> None:
        """Give every tensor its dtype again; raises TechniqueFailure if float16 cannot hold a weight."""
        wanted = {}
        for name, tensor in _saved(self.model):
            dtype = self.dtypes.get(name, self.dtype)
            if dtype == torch.float16 and tensor.numel() and tensor.abs().max() > torch.finfo(dtype).max:
                raise TechniqueFailure(
                    f"a weight of {name} exceeds the range of float16: lower learning_rate in its training, or load "
                    "the model with dtype: bfloat16 or float32"
                )
            wanted[name] = dtype
        self._convert(wanted)
        for module in self.model.modules():
            if isinstance(module, IntegerLinear):
                module.to(self.dtype)

    def _convert(self, dtypes: dict[str, torch.dtype]) -> None:
        for name, tensor in list(_saved(self.model)):
            if dtypes.get(name, tensor.dtype) == tensor.dtype:
                continue
            converted = tensor.detach().to(dtypes[name])
            if isinstance(tensor, nn.Parameter):
                tensor.grad = None
                tensor.data = converted
            else:
                owner, _, attribute = name.rpartition(".")
                setattr(self.model.get_submodule(owner), attribute, converted)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Inside, the model computes in float32: in 16 bits small gradients underflow, and long sums are rounded."""
    masters = MasterWeights(model)
    try:
        yield
    finally:
        masters.restore()


def _saved(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Floating-point parameters and saved buffers; what is computed when a model is built keeps its dtype."""
    scales = {id(b) for m in model.modules() if isinstance(m, IntegerLinear) for b in m.buffers()}
    names = model.state_dict().keys()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in names and tensor.is_floating_point() and id(tensor) not in scales:
            yield name, tensor
