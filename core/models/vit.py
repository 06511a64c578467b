"""`builtin:vit`: a Vision Transformer on the reference Transformer.

Paper: https://arxiv.org/abs/2010.11929. Here for small images: the patch size depends on the image size.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.errors import SpecError
from core.models.base import TransformerSettings
from core.nn.tokens.sizes import mean_token
from core.nn.transformer import Transformer, initialize_linears_, normal_
from core.tasks.base import InputFormat, Kind, Task


class Vit(Transformer):
    """Patches of an image through a bidirectional Transformer."""

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        channels: int,
        patch: int,
        pooling: str,
        n_classes: int,
        **blocks: Any,
    ):
        super().__init__(outputs=n_classes, **blocks)
        n_patches = (image_size[0] // patch) * (image_size[1] // patch)
        self.patch_embedding = nn.Conv2d(channels, self.dim, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, self.dim)) if pooling == "cls" else None
        self.position_embedding = nn.Parameter(torch.zeros(1, n_patches + (self.cls is not None), self.dim))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits [B, n_classes] of images [B, channels, height, width]."""
        x = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)  # [B, n_patches, dim]
        if self.cls is not None:
            x = torch.cat((self.cls.expand(len(x), -1, -1), x), dim=1)
        x = self.transform(x + self.position_embedding)
        return self.head(x[:, 0] if self.cls is not None else mean_token(x))

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Initialize the weights."""
        initialize_linears_(self, generator)
        fan_in = self.patch_embedding.weight[0].numel()
        normal_(self.patch_embedding.weight, fan_in**-0.5, generator)
        assert self.patch_embedding.bias is not None
        nn.init.zeros_(self.patch_embedding.bias)
        normal_(self.position_embedding, self.dim**-0.5, generator)
        if self.cls is not None:
            normal_(self.cls, self.dim**-0.5, generator)


class VitSettings(TransformerSettings):
    """A Vision Transformer, trained from scratch."""

    kind = Kind.IMAGE_CLASSIFICATION
    module = Vit

    patch: int | None = Field(
        None,
        ge=1,
        le=64,
        description="patch size in pixels; chosen from the image size if empty",
        json_schema_extra={"when_empty": "by image"},
    )
    pooling: Literal["cls", "mean"] = Field("cls", description="what the classification head reads")

    def resolve(self, task: Task) -> tuple[dict[str, Any], InputFormat]:
        """The arguments of `Vit`, and its input format."""
        assert task.image_shape is not None
        channels, height, width = task.image_shape
        config = {
            **self.resolve_blocks(),
            "image_size": [height, width],
            "channels": channels,
            "patch": self._patch(height, width),
            "pooling": self.check_pooling(self.pooling),
            "n_classes": task.n_classes,
        }
        return config, InputFormat(channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)

    def _patch(self, height: int, width: int) -> int:
        fitting = [p for p in range(1, min(height, width) + 1) if height % p == 0 and width % p == 0]
        if self.patch is None:
            return max(p for p in fitting if p * p <= min(height, width))  # at least sqrt(size) patches a side
        if self.patch not in fitting:
            message = f"does not divide the image, {height} x {width} pixels"
            raise SpecError.of("model.patch", self.patch, message, f"Choose one of {', '.join(map(str, fitting))}.")
        return self.patch
