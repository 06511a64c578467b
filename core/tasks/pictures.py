"""Pictures in files and on the page: to pixels and back. Loads no torch."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from core.errors import SpecError

SMALLEST_SHOWN = 128  # pixels; smaller images are enlarged by a whole factor, without smoothing
SIZE_OF_MIXED = 64  # pixels that pictures of different sizes are brought to unless told otherwise
LARGEST_PICTURE = 50_000_000  # pixels; more is taken for an attack on memory
MOST_PIXEL_BYTES = 4 * 2**30  # of all pictures together, once read
GREY_MODES = frozenset({"1", "L", "I;16", "LA"})


def png(pixels: np.ndarray) -> bytes:
    """PNG bytes of an image, uint8 [H, W, C] with 1 or 3 channels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    factor = max(1, SMALLEST_SHOWN // min(image.size))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def require_reasonable(size: tuple[int, int], name: str) -> None:
    """Raise SpecError for a picture so large that reading it would exhaust the memory."""
    width, height = size
    if width * height > LARGEST_PICTURE:
        message = f"is a picture of {width:,} x {height:,} pixels"
        raise SpecError.of("task.source", name, message, f"Scale it to at most {LARGEST_PICTURE // 10**6} megapixels.")


def common_shape(
    sizes: Sequence[tuple[int, int]], modes: Sequence[str], image_size: int | None
) -> tuple[int, int, int]:
    """Channels, height and width that all pictures are brought to.

    `sizes` are (width, height). Their own size if they share one, else squares. Raises SpecError where all of
    them together would not fit into memory.
    """
    channels = 1 if all(mode in GREY_MODES for mode in modes) else 3
    if image_size is not None:
        height = width = image_size
    elif len(set(sizes)) == 1:
        width, height = sizes[0]
    else:
        height = width = SIZE_OF_MIXED
    n_bytes = len(sizes) * channels * height * width
    if n_bytes > MOST_PIXEL_BYTES:
        message = f"makes {len(sizes):,} pictures take {n_bytes / 2**30:.1f} GiB"
        remedy = f"Choose a smaller image_size or fewer pictures; {MOST_PIXEL_BYTES // 2**30} GiB is the most."
        raise SpecError.of("task.image_size", image_size, message, remedy)
    return channels, height, width


def pixels_of(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """The picture as uint8 [H, W, C]: upright, its middle cut to the proportions and scaled to the size of `shape`."""
    channels, height, width = shape
    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off instead of scaling
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    if upright.size != (width, height):
        upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(upright, dtype=np.uint8).reshape(height, width, channels)
