"""Image classification: pixels in a model's input format."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from core.tasks.base import InputFormat, Split
from core.tasks.classification import Classification
from core.tasks.data import ImageData, calibration_indices
from core.tasks.kinds import Kind
from core.tasks.pictures import png

CENTRE, SPREAD = 0.5, 0.5  # what a model without statistics of its own gets: pixels from -1 to 1


class ImageTask(Classification):
    """A task on `ImageData`; resizing and normalizing happen as batches are made."""

    def __init__(self, name: str, data: ImageData):
        self.name, self.data = name, data
        self.kind: Kind = data.kind
        self.class_names = data.class_names
        self.n_classes: int | None = len(data.class_names)
        self.image_shape: tuple[int, int, int] | None = data.shape
        self.length: int | None = None
        self.content_hash = data.content_hash
        self.format = InputFormat()
        self._read: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def prepare(self, format: InputFormat) -> None:
        """Use the model's image size, channels and normalization; None keeps the data's own."""
        self.format = format

    def split(self, name: str) -> Split:
        """Examples as `pixel_values` [B, C, H, W] and `labels` [B]."""
        pixels, labels = self._raw(name)
        return ImageSplit(torch.from_numpy(pixels), torch.from_numpy(labels), self.format)

    def show(self, split: str, indices: list[int]) -> list[dict[str, Any]]:
        """The raw images as PNG bytes, with the names of their classes."""
        pixels, labels = self._raw(split)
        return [{"image": png(pixels[i]), "label": self.data.class_names[labels[i]]} for i in indices]

    def _raw(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split not in self._read and split != "calibration":
            self._read[split] = self.data.pixels(split), self.data.labels[split]
        elif split not in self._read:
            pixels, labels = self._raw("train")
            chosen = calibration_indices(len(labels))
            self._read[split] = pixels[chosen], labels[chosen]
        return self._read[split]


class ImageSplit:
    """Images of one size in a fixed order."""

    def __init__(self, pixels: Tensor, labels: Tensor, format: InputFormat):
        self.pixels, self.labels, self.format = pixels, labels, format  # uint8 [N, H, W, C], [N]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """`pixel_values` [B, C, H, W], resized and normalized, and `labels` [B]."""
        images = self.pixels[indices].permute(0, 3, 1, 2).float() / 255  # [B, C, H, W] in 0..1
        images = with_channels(images, self.format.channels)
        size = self.format.image_size
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        mean, std = _per_channel(self.format.mean, CENTRE), _per_channel(self.format.std, SPREAD)
        return {"pixel_values": ((images - mean) / std).contiguous(), "labels": self.labels[indices]}


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """The images with 1 or 3 channels: grey is repeated, colour is converted to luma (ITU-R BT.601)."""
    if channels is None or channels == images.shape[1]:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _per_channel(given: Sequence[float] | None, default: float) -> Tensor:
    return torch.tensor(given if given is not None else [default]).view(1, -1, 1, 1)
