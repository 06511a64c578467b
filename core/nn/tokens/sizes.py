"""How much each token counts, carried from block to block with the tokens themselves.

After merging it is the number of patches that a token stands for; while selection is trained it is 1 for a token
that is kept and 0 for one that is dropped. Blocks of other libraries hand on nothing but the hidden states, so the
sizes [B, T] travel as an attribute of that tensor; without the attribute every token counts as one.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def with_sizes(x: Tensor, sizes: Tensor | None) -> Tensor:
    """The tokens x [B, T, dim], and what each of them counts [B, T]."""
    if sizes is not None:
        x.token_sizes = sizes  # type: ignore[attr-defined]
    return x


def sizes_of(x: Tensor) -> Tensor | None:
    """What each of the tokens counts [B, T]; None: one."""
    return getattr(x, "token_sizes", None)


def moved(x: Tensor, device: torch.device | str, *, copy: bool = False) -> Tensor:
    """The tokens on a device, with what each of them counts there."""
    sizes = sizes_of(x)
    return with_sizes(x.to(device, copy=copy), None if sizes is None else sizes.to(device))


def mean_token(x: Tensor) -> Tensor:
    """Mean of the tokens [B, T, dim] -> [B, dim], each as often as it counts; 0 where selection drew none."""
    sizes = sizes_of(x)
    if sizes is None:
        return x.mean(dim=1)
    share = sizes / sizes.sum(dim=1, keepdim=True).clamp(min=1)
    return (share[..., None].to(x.dtype) * x).sum(dim=1)


def proportional_attention(q: Tensor, k: Tensor, v: Tensor, sizes: Tensor | None) -> Tensor:
    """Softmax attention in which a key of size s acts as s equal keys (ToMe, section 3): ln s is added to its logits.

    q, k, v are [B, heads, T, head_dim], sizes [B, T]; gives [B, heads, T, head_dim].
    """
    bias = None if sizes is None else sizes.log()[:, None, None, :].to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, kept: Tensor) -> Tensor:
    """Softmax attention to the kept tokens and to oneself (DynamicViT, section 3.2), with a gradient for `kept`.

    The exponentials are multiplied by kept [B, T] (1 or 0), which an infinite logit would cut the gradient of. The
    diagonal stays, so that a dropped token has something to attend to. Shapes as in `proportional_attention`.
    """
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # [B, heads, T, T]
    own = torch.eye(kept.shape[1], dtype=kept.dtype, device=kept.device)
    allowed = kept[:, None, :] + (1 - kept[:, None, :]) * own  # [B, T, T]
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp() * allowed[:, None]
    return (weights / weights.sum(dim=-1, keepdim=True)).to(v.dtype) @ v
