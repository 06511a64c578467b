import hashlib

import numpy as np
import pytest

from core.tasks.sources import shapes
from core.tasks.sources.shapes import SHAPES, SIZE, Shapes, render


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and splits small enough for a test."""
    monkeypatch.setattr(shapes, "CHUNK", 20)
    monkeypatch.setattr(shapes, "EXAMPLES", {"train": 60, "validation": 20, "test": 40})


def test_pictures_are_the_same_whenever_and_however_many_are_rendered():
    first, longer = render(30, 1, 0.1, 0.3), render(50, 1, 0.1, 0.3)
    assert hashlib.sha256(first).digest() == hashlib.sha256(longer[:30]).digest()
    assert first.shape == (30, SIZE, SIZE, 1) and first.dtype == np.uint8


def test_no_two_pictures_are_alike_within_or_across_splits():
    data = Shapes().read("shapes")
    pictures = [picture.tobytes() for split in data.labels for picture in data.pixels(split)]
    assert len(set(pictures)) == len(pictures) == 120


def test_splits_are_balanced():
    data = Shapes().read("shapes")
    assert np.bincount(data.labels["test"]).tolist() == [4] * 10 and len(data.class_names) == 10


def test_rendered_split_is_kept_and_read_again(home, monkeypatch):
    first = Shapes().read("shapes").pixels("test")
    monkeypatch.setattr(shapes, "render", None)
    assert np.array_equal(Shapes().read("shapes").pixels("test"), first)
    assert [path.suffix for path in (home / "cache").iterdir()] == [".npy"]


def test_without_noise_and_bar_a_picture_has_two_greys_and_their_mixtures():
    picture = render(1, 3, noise=0, occlusion=0)[0]
    greys, counts = np.unique(picture, return_counts=True)
    assert 2 <= len(greys) <= 5 and picture.max() - picture.min() >= 0.3 * 255 - 1
    assert np.sort(counts)[-2:].sum() > 0.7 * SIZE * SIZE


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", np.pi * 0.8),
        ("ring", np.pi * 0.5),
        ("half disc", np.pi / 2),
        ("triangle", 3 * np.sqrt(3) / 4),
        ("square", 1.4**2),
        ("frame", 1.4**2 * (1 - 1 / 1.7**2)),
        ("bar", 1.9 * 0.7),
        ("plus", 4 * 0.28 * (2 * 0.9 - 0.28)),
        ("star", 1.1226),  # of a pentagram whose tips lie at radius 1
    ],
)
def test_shape_has_its_area(name, area):
    axis = (np.arange(600, dtype=np.float32) + 0.5) / 300 - 1
    x, y = np.meshgrid(axis, axis)
    assert SHAPES[name](x, y).mean() * 4 == pytest.approx(area, rel=0.01)
