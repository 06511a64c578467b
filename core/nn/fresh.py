"""Drawing the parameters that swapped-in modules add: on the generator's device, wherever the model is.

Nothing is done on the meta device.
"""

import torch
from torch import Tensor


@torch.no_grad()
def uniform_(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Fill evenly between -bound and bound."""
    if not parameter.is_meta:
        drawn = torch.rand(parameter.shape, generator=generator)
        parameter.copy_((2 * drawn - 1) * bound)


def xavier_uniform_(weight: Tensor, generator: torch.Generator | None, gain: float = 1.0) -> None:
    """Fill a linear's weight [out, in] evenly, with Xavier's bound times `gain`."""
    uniform_(weight, gain * (6 / sum(weight.shape)) ** 0.5, generator)
