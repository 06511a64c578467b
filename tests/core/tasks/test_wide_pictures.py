"""Pictures whose values exceed 8 bits or are not whole: scaled alike in the whole data set, or refused."""

import numpy as np
import pytest
from PIL import Image

from core.errors import SpecError
from core.spec.model import TaskSpec
from core.tasks.catalogue import read

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
GREY = np.linspace(0, 255, 64).reshape(8, 8)


def save(data, values):
    """Two classes of ten pictures, each moved by a pixel so that no two are equal."""
    for i in range(20):
        folder = data / "scans" / ("cats" if i < 10 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(values, i)).save(folder / f"{i}.tif")


def pixels():
    found = read(TaskSpec(source="file:scans"))
    assert found.shape == (1, 8, 8)
    return np.concatenate([found.pixels(split) for split in found.labels]), found.warnings


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (RAMP.astype(np.float32), "0 to 1."),
        ((255 * RAMP).astype(np.float32), "0 to 255."),
        ((4095 * RAMP).astype(np.uint16), "12 bits"),
        ((1023 * RAMP).astype(np.uint16), "10 bits"),
        ((65535 * RAMP).astype(np.uint16), "16 bits"),
        ((65535 * RAMP).astype(np.int32), "16 bits"),
        ((255 * RAMP).astype(np.int32), "8 bits"),
    ],
)
def test_values_keep_their_contrast(data, values, told):
    save(data, values)
    read_pixels, warnings = pixels()
    for picture in read_pixels:
        np.testing.assert_allclose(np.sort(picture.ravel().astype(float)), np.sort(GREY.ravel()), atol=1.01)
    assert any(told in warning for warning in warnings)


def test_a_dark_picture_stays_darker_than_a_bright_one(data):
    save(data, (4000 * RAMP).astype(np.uint16))
    Image.fromarray(np.full((8, 8), 160, dtype=np.uint16)).save(data / "scans" / "cats" / "dark.tif")
    assert any((picture == 10).all() for picture in pixels()[0])  # 160 / 16


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((8, 8), np.nan, np.float32), "nan"),
        (np.full((8, 8), -0.5, np.float32), "-0.5"),
        (np.full((8, 8), 3000.0, np.float32), "3000"),
        (np.full((8, 8), 70_000, np.int32), "70000"),
    ],
)
def test_values_without_a_known_range_are_refused_with_the_file(data, values, words):
    save(data, RAMP.astype(np.float32))
    Image.fromarray(values).save(data / "scans" / "dogs" / "odd.tif")
    with pytest.raises(SpecError) as error:
        read(TaskSpec(source="file:scans"))
    (problem,) = error.value.problems
    assert problem.value == "dogs/odd.tif" and words in problem.message and problem.remedy
