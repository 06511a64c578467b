"""`builtin:resnet`: the residual network of the CIFAR experiments, three stages of basic blocks.

Paper: https://arxiv.org/abs/1512.03385, section 4.2. Here shortcuts that change shape are 1x1 convolutions
(the paper's option B), so that every addition joins outputs of prunable layers.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SpecError
from core.models.base import Architecture
from core.tasks.base import InputFormat, Kind, Task


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out_channels:
            projection = nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> [B, out_channels, H / stride, W / stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Resnet(nn.Module):
    """A 3x3 convolution, three stages at falling resolution, mean pooling, a linear head."""

    def __init__(self, *, depth: int, width: int, image_size: tuple[int, int], channels: int, n_classes: int):
        super().__init__()
        n_blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        current = width
        for stage in range(3):
            for index in range(n_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(BasicBlock(current, width * 2**stage, stride))
                current = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(current, n_classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits [B, n_classes] of images [B, channels, height, width]."""
        x = F.relu(self.norm(self.conv(pixel_values)))
        return self.head(self.blocks(x).mean(dim=(2, 3)))

    def initialize_(self, generator: torch.Generator | None) -> None:
        """Fresh weights: He's normal distribution for convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        if not self.head.weight.is_meta:
            nn.init.normal_(self.head.weight, std=self.head.in_features**-0.5, generator=generator)
            nn.init.zeros_(self.head.bias)


class ResnetSettings(Architecture):
    """A CIFAR-style residual network, trained from scratch."""

    kind = Kind.IMAGE_CLASSIFICATION
    module = Resnet

    depth: int = Field(20, ge=8, le=200, description="weighted layers: 6 n + 2")
    width: int = Field(16, ge=4, le=512, description="channels of the first stage; each of the next two doubles them")

    def resolve(self, task: Task) -> tuple[dict[str, Any], InputFormat]:
        """The arguments of `Resnet`, and its input format."""
        assert task.image_shape is not None
        if (self.depth - 2) % 6:
            below = self.depth - (self.depth - 2) % 6
            remedy = f"Choose {below} or {below + 6}."
            raise SpecError.of("model.depth", self.depth, "is not 6 n + 2", remedy)
        channels, height, width = task.image_shape
        config = {
            "depth": self.depth,
            "width": self.width,
            "image_size": [height, width],
            "channels": channels,
            "n_classes": task.n_classes,
        }
        return config, InputFormat(channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
