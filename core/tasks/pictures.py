"""Pixels as PNG for people. Loads no torch."""

import io

import numpy as np
from PIL import Image

SMALLEST_SHOWN = 128  # pixels; smaller images are enlarged by a whole factor, without smoothing


def png(pixels: np.ndarray) -> bytes:
    """PNG bytes of an image, uint8 [H, W, C] with 1 or 3 channels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    factor = max(1, SMALLEST_SHOWN // min(image.size))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
