"""The format of a Hugging Face vision model's images: size, channels and normalization."""

import json
from pathlib import Path
from typing import Any

from core.tasks.base import InputFormat


def image_format(folder: Path, hf_config: Any) -> InputFormat:
    """From the config and `preprocessor_config.json`."""
    file = folder / "preprocessor_config.json"
    options = json.loads(file.read_text()) if file.is_file() else {}
    size = getattr(hf_config, "image_size", None) or options.get("size")
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    channels = getattr(hf_config, "num_channels", 3)
    normalized = options.get("do_normalize", True)
    mean, std = options.get("image_mean", 0.5), options.get("image_std", 0.5)
    return InputFormat(
        image_size=size[0] if isinstance(size, list) else size,
        channels=channels,
        mean=_per_channel(mean if normalized else 0.0, channels),
        std=_per_channel(std if normalized else 1.0, channels),
    )


def _per_channel(value: Any, channels: int) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value] * channels
    return tuple(map(float, values))
