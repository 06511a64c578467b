import io

import numpy as np
import pytest
import torch
from PIL import Image

from core.tasks.base import InputFormat
from core.tasks.data import ImageData
from core.tasks.images import ImageTask, with_channels

PIXELS = np.array([0, 255, 51], dtype=np.uint8).repeat(16).reshape(3, 4, 4, 1)


def make_task(pixels: np.ndarray = PIXELS) -> ImageTask:
    labels = np.array([0, 1, 1])
    _, height, width, channels = pixels.shape
    splits = dict.fromkeys(("train", "validation", "test"), labels)
    return ImageTask("test", ImageData(("x", "y"), (channels, height, width), splits, lambda split: pixels, "hash"))


def test_pixels_lie_between_minus_one_and_one():
    batch = make_task().split("test").batch(torch.tensor([0, 1, 2]))
    assert batch["pixel_values"].shape == (3, 1, 4, 4)
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])
    assert batch["labels"].tolist() == [0, 1, 1]


def test_model_gets_its_size_channels_and_normalization():
    task = make_task()
    task.prepare(InputFormat(image_size=8, channels=3, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0)))
    values = task.split("train").batch(torch.tensor([1]))["pixel_values"]
    assert values.shape == (1, 3, 8, 8)
    assert values[0, :, 3, 3].tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_colour_becomes_grey_by_luminance():
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    assert with_channels(green, 1).item() == pytest.approx(0.587)


def test_small_images_are_enlarged_for_people_without_smoothing():
    shown = make_task().show("test", [2])[0]
    image = Image.open(io.BytesIO(shown["image"]))
    assert shown["label"] == "y" and image.size == (128, 128)
    assert set(np.asarray(image).flatten().tolist()) == {51}
