"""What blocks that reduce tokens share: they work with the parts of the block whose place they take."""

from typing import Any

from torch import Tensor, nn

from core.nn.replacement import Replacement


class ReducingBlock(Replacement):
    """A pre-norm block of a ViT, taken apart so that something can happen to its tokens.

    `parts` names the submodules that are its norm1, q, k, v, o, norm2 and ffn. They are the original block's and keep
    their names, so that later steps find the same linears as before.
    """

    def __init__(self, parts: dict[str, str], head_dim: int):
        super().__init__()
        self.parts = parts
        self.head_dim = head_dim

    def arguments(self) -> dict[str, Any]:
        return {"parts": self.parts, "head_dim": self.head_dim}

    def adopt(self, original: nn.Module) -> None:
        for name, child in original.named_children():
            self.add_module(name, child)

    def kernel(self, *_: object) -> str:
        return "dense"

    def part(self, name: str) -> nn.Module:
        """The submodule that is the block's norm1, q, k, v, o, norm2 or ffn now."""
        return self.get_submodule(self.parts[name])

    def heads(self, name: str, x: Tensor) -> Tensor:
        """A projection of x [B, T, dim] in heads: [B, heads, T, head_dim]."""
        projected: Tensor = self.part(name)(x)
        return projected.unflatten(2, (-1, self.head_dim)).transpose(1, 2)

    def out(self, mixed: Tensor) -> Tensor:
        """Mixed heads [B, heads, T, head_dim] back to [B, T, dim]."""
        projected: Tensor = self.part("o")(mixed.transpose(1, 2).flatten(2))
        return projected

    def feed_forward(self, x: Tensor) -> Tensor:
        """x + ffn(norm2(x))."""
        return x + self.part("ffn")(self.part("norm2")(x))
