"""Feed-forward networks of the reference Transformer, by name: each is made with (dim, hidden)."""

from torch import nn

from core.nn.ffn.gated import GatedFfn
from core.nn.ffn.mlp import Mlp

FFN: dict[str, type[nn.Module]] = {"mlp": Mlp, "swiglu": GatedFfn}
