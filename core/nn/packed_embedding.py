"""Embedding whose table is a packed linear layer: only the rows that are looked up are unpacked."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from core.nn.integer_linear import IntegerLinear
from core.nn.replacement import Replacement


class PackedEmbedding(Replacement):
    """Rows of a packed `table` [num_embeddings, embedding_dim], in the table's `dtype`.

    A head that shares the embedding's weights is the table itself, under a second name: its bytes are stored once.
    """

    holds_tables = True

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.table = nn.Module()  # the manifest names what goes there

    @classmethod
    def of(cls, table: IntegerLinear) -> Self:
        """The embedding of this table."""
        made = cls(table.out_features, table.in_features)
        made.table = table
        return made

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [...] -> their rows [..., embedding_dim]."""
        table = self.table
        assert isinstance(table, IntegerLinear)
        rows = table.rows(tokens.flatten())
        return rows.view(*tokens.shape, self.embedding_dim).to(table.dtype)

    def arguments(self) -> dict[str, Any]:
        return {"num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim}

    def kernel(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """A look-up needs none."""
        return "dense"

    def dense(self) -> nn.Embedding:
        """An ordinary embedding with the dequantized rows."""
        assert isinstance(self.table, IntegerLinear)
        return nn.Embedding.from_pretrained(self.table.weight().to(self.table.dtype), freeze=False)
