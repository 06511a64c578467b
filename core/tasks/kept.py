"""Caches expensive arrays in the home folder. Loads no torch."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np


def kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in the file, which is computed and written first if it does not exist."""
    if path.exists():
        return np.load(path, allow_pickle=False)
    array = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    unfinished.replace(path)
    return array
