"""Small pictures for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_picture(path: Path, number: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    """A picture of noise that differs for every number; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_classes(folder: Path, n_each: int, **options: object) -> Path:
    """Class folders cats and dogs with `n_each` pictures each."""
    for c, name in enumerate(("cats", "dogs")):
        for i in range(n_each):
            save_picture(folder / name / f"{i}.png", 1000 * c + i, **options)  # type: ignore[arg-type]
    return folder
