"""GPT-2's Conv1D is a linear layer with a transposed weight; converted to nn.Linear, it works with every technique."""

import torch
from torch import nn


@torch.no_grad()
def convert_conv1d_(model: nn.Module) -> None:
    """Replace every transformers Conv1D by an equal nn.Linear, in place; also on the meta device."""
    from transformers.pytorch_utils import Conv1D

    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Conv1D)]
    for name, module in found:
        n_in, n_out = module.weight.shape
        with torch.device("meta"):
            linear = nn.Linear(n_in, n_out)
        linear.weight = nn.Parameter(module.weight.t().contiguous())  # [out, in]
        linear.bias = module.bias
        model.set_submodule(name, linear)
