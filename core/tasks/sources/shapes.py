"""Synthetic shapes: rotated, shifted, scaled, partly covered, noisy; enough images for statistics.

Every image is generated from fixed seeds, so they are the same everywhere. Rendering takes some seconds per
split and is cached in the home folder.
"""

from collections.abc import Callable

import numpy as np
from pydantic import Field

from core.settings import settings
from core.tasks.data import ImageData, TaskSource
from core.tasks.kept import kept

VERSION = 1  # of the drawing: another one makes another task
EXAMPLES = {"train": 20_000, "validation": 4_000, "test": 20_000}
SEEDS = {"train": 30_001, "validation": 30_002, "test": 30_003}
SIZE = 32  # pixels
SUPERSAMPLING = 2  # points per pixel and direction
CHUNK = 1_000  # images rendered at once
SCALE = (0.6, 0.95)  # radius of the shape, in half images
SHIFT = 0.15  # largest shift, in half images
CONTRAST = 0.3  # by which a shape is at least brighter than its background (black 0, white 1)


def _sides_inside(x: np.ndarray, y: np.ndarray, n_corners: int) -> np.ndarray:
    """How many of the sides of a regular polygon of radius 1 a point lies inside of [n, points]."""
    angles = 2 * np.pi * (np.arange(n_corners) + 0.5) / n_corners
    inner = np.float32(np.cos(np.pi / n_corners))
    sides = zip(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), strict=True)
    count = np.zeros(x.shape, dtype=np.int8)
    for cos, sin in sides:
        count += x * cos + y * sin <= inner
    return count


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) <= 0.7


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points: inside of at least four of the five lines that a pentagram is drawn with."""
    stretch = np.float32(np.cos(np.pi / 5) / np.cos(2 * np.pi / 5))  # puts the star's tips at radius 1
    return _sides_inside(x * stretch, y * stretch, 5) >= 4


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * x + y * y <= 0.8


def _plus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return (np.minimum(x, y) <= 0.28) & (np.maximum(x, y) <= 0.9)


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": _disc,
    "half disc": lambda x, y: (x * x + (y - 0.4) ** 2 <= 1) & (y <= 0.4),
    "ring": lambda x, y: _disc(x, y) & (x * x + y * y >= 0.3),
    "crescent": lambda x, y: _disc(x, y) & ((x - 0.45) ** 2 + y * y >= 0.45),
    "triangle": lambda x, y: _sides_inside(x, y, 3) == 3,
    "square": _square,
    "frame": lambda x, y: _square(x, y) & ~_square(1.7 * x, 1.7 * y),
    "star": _star,
    "plus": _plus,
    "bar": lambda x, y: (np.abs(x) <= 0.95) & (np.abs(y) <= 0.35),
}


class Shapes(TaskSource):
    """Synthetic shapes, ten classes, 32x32 grey pixels. Its 20,000 test images show differences that digits cannot."""

    noise: float = Field(0.1, ge=0, le=0.5, description="maximum deviation of the pixel noise (black 0, white 1)")
    occlusion: float = Field(0.3, ge=0, le=0.8, description="maximum width of the bar across the image, in half images")

    def read(self, name: str) -> ImageData:
        """The classes in turn, so that each has the same share of every split."""
        identity = self.identity(VERSION, EXAMPLES, SEEDS)
        return ImageData(
            class_names=tuple(SHAPES),
            shape=(1, SIZE, SIZE),
            labels={split: np.arange(n, dtype=np.int64) % len(SHAPES) for split, n in EXAMPLES.items()},
            pixels=lambda split: kept(
                settings().home / "cache" / f"shapes-{identity[:16]}-{split}.npy",
                lambda: render(EXAMPLES[split], SEEDS[split], self.noise, self.occlusion),
            ),
            content_hash=identity,
        )


def render(n_images: int, seed: int, noise: float, occlusion: float) -> np.ndarray:
    """`n_images` images, image i of class i modulo 10: uint8 [n, 32, 32, 1].

    Every chunk has its own seed, so an image does not depend on the number of images.
    """
    chunks = [
        _render_chunk(np.random.default_rng([seed, start]), noise, occlusion)[: n_images - start]
        for start in range(0, n_images, CHUNK)
    ]
    return np.concatenate(chunks)


def _render_chunk(random: np.random.Generator, noise: float, occlusion: float) -> np.ndarray:
    """CHUNK images: a shape on a background, a bar over it, averaged to pixels, with noise."""
    background = random.uniform(0, 1 - CONTRAST, (CHUNK, 1, 1, 1)).astype(np.float32)
    bright = background + random.uniform(CONTRAST, 1 - background).astype(np.float32)
    bar_grey = random.random((CHUNK, 1, 1, 1), dtype=np.float32)
    bar, shape = _bars(random, occlusion), _shapes(random)  # masks [n, points]
    by_bar, by_shape = _share_of_pixels(bar), _share_of_pixels(shape & ~bar)  # [n, SIZE, SIZE, 1]
    image = background + by_shape * (bright - background) + by_bar * (bar_grey - background)
    deviation = random.uniform(0, noise, (CHUNK, 1, 1, 1)).astype(np.float32)
    image += deviation * random.standard_normal(image.shape, dtype=np.float32)
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


def _share_of_pixels(mask: np.ndarray) -> np.ndarray:
    """How much of each pixel a mask [n, points] covers: [n, SIZE, SIZE, 1]."""
    points = mask.reshape(CHUNK, SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING)
    return points.mean(axis=(2, 4), dtype=np.float32)[..., None]


def _points() -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x and y of the sampled points, from -1 to 1, row by row [points]."""
    n = SIZE * SUPERSAMPLING
    centres = ((np.arange(n, dtype=np.float32) + 0.5) / n) * 2 - 1
    return np.tile(centres, n), np.repeat(centres, n)


def _turned(random: np.random.Generator, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """The points in the frames of CHUNK things, each shifted and turned by any angle [n, points]."""
    angle = random.uniform(0, 2 * np.pi, (CHUNK, 1)).astype(np.float32)
    right, down = random.uniform(-shift, shift, (2, CHUNK, 1)).astype(np.float32)
    x, y = (axis[None] for axis in _points())
    x, y = x - right, y - down
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _shapes(random: np.random.Generator) -> np.ndarray:
    """Masks of the shapes, each drawn in a frame of its own size [n, points]."""
    radius = random.uniform(*SCALE, (CHUNK, 1)).astype(np.float32)
    x, y = (axis / radius for axis in _turned(random, SHIFT))
    masks = np.empty(x.shape, dtype=bool)
    for i, inside in enumerate(SHAPES.values()):
        masks[i :: len(SHAPES)] = inside(x[i :: len(SHAPES)], y[i :: len(SHAPES)])
    return masks


def _bars(random: np.random.Generator, occlusion: float) -> np.ndarray:
    """Masks of bars across the images, up to `occlusion` wide (the image's width is 2) [n, points]."""
    across, _ = _turned(random, 0.6)
    return np.abs(across) <= random.uniform(0, occlusion / 2, (CHUNK, 1)).astype(np.float32)
