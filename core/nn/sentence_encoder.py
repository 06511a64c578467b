"""A sentence encoder: a Transformer whose token vectors are pooled to one vector for each text.

Paper: https://arxiv.org/abs/1908.10084 (Sentence-BERT, section 3). As in sentence-transformers: padding is left out of
the mean and of the maximum, and cls is the first token.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.nn.precision import wide

Pooling = Literal["mean", "cls", "max"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "max")


class SentenceEncoder(nn.Module):
    """A Hugging Face model without a head, pooled; the configuration is the model's."""

    def __init__(self, model: nn.Module, pooling: Pooling, normalize: bool):
        super().__init__()
        self.model = model
        self.pooling, self.normalize = pooling, normalize

    @property
    def config(self) -> Any:
        """The configuration of the Transformer."""
        return self.model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embeddings [..., D] of texts [..., T]; attention_mask [..., T] is 0 at padding."""
        texts = input_ids.flatten(0, -2)
        mask = torch.ones_like(texts) if attention_mask is None else attention_mask.flatten(0, -2)
        tokens = self.model(input_ids=texts, attention_mask=mask).last_hidden_state  # [N, T, D]
        embeddings = pool(tokens, mask, self.pooling)
        if self.normalize:
            embeddings = F.normalize(wide(embeddings), dim=-1).to(embeddings.dtype)
        return embeddings.unflatten(0, input_ids.shape[:-1])


def pool(tokens: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector for each text, [N, D], from its tokens' [N, T, D]; mask [N, T] is 0 at padding."""
    if pooling == "cls":
        return tokens[:, 0]
    present = mask.bool()[:, :, None]  # [N, T, 1]
    if pooling == "max":
        return tokens.masked_fill(~present, torch.finfo(tokens.dtype).min).amax(dim=1)
    total = (wide(tokens) * present).sum(dim=1)
    return (total / present.sum(dim=1).clamp(min=1)).to(tokens.dtype)
