"""Converts image files to pixels and back. Loads no torch."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from core.errors import SpecError

SMALLEST_SHOWN = 128  # pixels; smaller images are enlarged by a whole factor, without smoothing
SIZE_OF_MIXED = 64  # pixels that pictures of different sizes are brought to unless told otherwise
LARGEST_PICTURE = 50_000_000  # pixels; more is taken for an attack on memory
MOST_PIXEL_BYTES = 4 * 2**30  # of all pictures together, once read
WIDE_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})  # grey, with values that may exceed 8 bits
GREY_MODES = frozenset({"1", "L", "LA"}) | WIDE_MODES
WHOLE_BITS = (8, 10, 12, 14, 16)  # depths that cameras and scanners have


@dataclass(frozen=True)
class Header:
    """Properties of an image before its pixels are loaded."""

    name: str  # for people: its file or row
    size: tuple[int, int]  # width, height in pixels
    mode: str  # Pillow's
    low: float = 0.0  # of its values, where the mode is one of WIDE_MODES
    high: float = 0.0


@dataclass(frozen=True)
class ValueRange:
    """The value of white, the same for all images of a data set, so that brightness stays comparable."""

    bits: int = 8  # of whole numbers: white is 2^bits - 1
    white: float = 1.0  # of floating-point numbers

    def warnings(self, headers: Sequence[Header]) -> list[str]:
        """Warnings for users about how values were read."""
        told = []
        if any(header.mode in WIDE_MODES - {"F"} for header in headers):
            white = 2**self.bits - 1
            told.append(f"Images with integers of more than 8 bits are read as {self.bits} bits: 0 to {white:,}.")
        if any(header.mode == "F" for header in headers):
            told.append(f"Images with floating-point values are read as 0 to {self.white:g}.")
        return told


def png(pixels: np.ndarray) -> bytes:
    """PNG bytes of an image, uint8 [H, W, C] with 1 or 3 channels."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    factor = max(1, SMALLEST_SHOWN // min(image.size))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def require_reasonable(size: tuple[int, int], name: str) -> None:
    """Raise SpecError for an image so large that reading it would exhaust the memory."""
    width, height = size
    if width * height > LARGEST_PICTURE:
        message = f"is an image of {width:,} x {height:,} pixels"
        raise SpecError.of("task.source", name, message, f"Scale it to at most {LARGEST_PICTURE // 10**6} megapixels.")


def header_of(image: Image.Image, name: str) -> Header:
    """Size and mode and, for wide modes, the range of values, for which the image is decoded.

    Raises SpecError for an image that is too large, or whose values cannot be interpreted as brightness.
    """
    require_reasonable(image.size, name)
    if image.mode not in WIDE_MODES:
        return Header(name, image.size, image.mode)
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(values).all() and low >= 0 and high < 2**16):
        message = f"is an image of mode {image.mode} with values from {low:g} to {high:g}"
        remedy = "Save it with integers of at most 16 bits, or with floating-point values from 0 to 1."
        raise SpecError.of("task.source", name, message, remedy)
    return Header(name, image.size, image.mode, low, high)


def value_range(headers: Sequence[Header]) -> ValueRange:
    """The smallest usual range that contains the values of all images.

    Raises SpecError, naming the image, for floating-point values beyond 255.
    """
    brightest = max((h for h in headers if h.mode == "F"), key=lambda h: h.high, default=None)
    if brightest is not None and brightest.high > 255:
        message = f"is an image with floating-point values up to {brightest.high:g}"
        raise SpecError.of("task.source", brightest.name, message, "Scale the values to 0 to 1, or save integers.")
    highest = max((h.high for h in headers if h.mode in WIDE_MODES and h.mode != "F"), default=0.0)
    bits = next(bits for bits in WHOLE_BITS if highest < 2**bits)
    return ValueRange(bits, 1.0 if brightest is None or brightest.high <= 1 else 255.0)


def common_shape(headers: Sequence[Header], image_size: int | None) -> tuple[int, int, int]:
    """Channels, height and width that all images are scaled to.

    Their own size if they share one, else squares. Raises SpecError if all of them together would not fit into
    memory.
    """
    channels = 1 if all(header.mode in GREY_MODES for header in headers) else 3
    if image_size is not None:
        height = width = image_size
    elif len({header.size for header in headers}) == 1:
        width, height = headers[0].size
    else:
        height = width = SIZE_OF_MIXED
    n_bytes = len(headers) * channels * height * width
    if n_bytes > MOST_PIXEL_BYTES:
        message = f"makes {len(headers):,} images take {n_bytes / 2**30:.1f} GiB"
        remedy = f"Choose a smaller image_size or fewer images; the limit is {MOST_PIXEL_BYTES // 2**30} GiB."
        raise SpecError.of("task.image_size", image_size, message, remedy)
    return channels, height, width


def pixels_of(image: Image.Image, shape: tuple[int, int, int], values: ValueRange) -> np.ndarray:
    """The image as uint8 [H, W, C]: upright, center-cropped to the aspect ratio and scaled to the size of `shape`."""
    channels, height, width = shape
    upright = ImageOps.exif_transpose(image)
    if upright.mode in WIDE_MODES:  # `convert` would cut values off instead of scaling them
        upright = _in_8_bits(upright, values)
    upright = upright.convert("L" if channels == 1 else "RGB")
    if upright.size != (width, height):
        upright = ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(upright, dtype=np.uint8).reshape(height, width, channels)


def _in_8_bits(image: Image.Image, values: ValueRange) -> Image.Image:
    wide = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray((wide * (255 / values.white)).round().astype(np.uint8))
    return Image.fromarray((wide >> (values.bits - 8)).astype(np.uint8))
