"""Folders named like splits are splits, or the layout is refused: never a class called "dev"."""

import pytest

from core.errors import SpecError
from core.spec.model import TaskSpec
from core.tasks.catalogue import read
from tests.core.tasks.pictures import save_classes, save_picture


def problem():
    with pytest.raises(SpecError) as error:
        read(TaskSpec(source="file:pets"))
    (only,) = error.value.problems
    assert only.remedy
    return only


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN_SET", "train2017"])
@pytest.mark.parametrize(
    ("held_out", "split"),
    [
        ("dev", "validation"),
        ("Val", "validation"),
        ("valid", "validation"),
        ("eval", "validation"),
        ("TESTING", "test"),
    ],
)
def test_split_names_are_recognised_in_any_case(data, train, held_out, split):
    save_classes(data / "pets" / train, 20)
    save_classes(data / "pets" / held_out, 6)
    found = read(TaskSpec(source="file:pets"))
    assert found.class_names == ("cats", "dogs") and len(found.labels[split]) == 12


@pytest.mark.parametrize(
    ("folders", "value", "words"),
    [
        (["train/cats", "train/dogs", "unsup/x"], "pets", "mixes split folders (train) with others (unsup)"),
        (["train/cats", "train/dogs", "cats", "dogs"], "pets", "with others (cats, dogs)"),
        (["bus", "plane", "train"], "pets", "with others (bus, plane)"),
        (["test/cats", "dev/dogs"], "pets", "no train folder next to dev, test"),
        (
            ["train/cats", "train/dogs", "val/cats", "dev/cats"],
            "pets",
            "several folders for the validation split: dev, val",
        ),
        (["train/cats", "train/dogs", "train/Unsup"], "train/Unsup", "has the name of a split"),
        (["train/cats", "train/dogs", "train/val"], "train/val", "has the name of a split"),
        (["cats/train", "cats/test", "dogs/train"], "cats/test", "is a split folder inside the class folder cats"),
    ],
)
def test_mixed_layouts_are_refused(data, folders, value, words):
    for number, folder in enumerate(folders):
        save_picture(data / "pets" / folder / "0.png", number)
    found = problem()
    assert found.value == value and words in found.message


def test_a_class_may_be_called_train_inside_of_a_split(data):
    for number in range(10):
        for name in ("bus", "train"):
            save_picture(data / "pets" / "train" / name / f"{number}.png", number * 2 + (name == "bus"))
    assert read(TaskSpec(source="file:pets")).class_names == ("bus", "train")


@pytest.mark.parametrize("place", ["test/0.png", "1.png"])
def test_loose_pictures_are_not_dropped_in_silence(data, place):
    save_classes(data / "pets" / "train", 10)
    save_classes(data / "pets" / "test", 10)
    save_picture(data / "pets" / place, 1)
    found = problem()
    assert found.value == place and "outside any class folder" in found.message


def test_an_empty_split_is_refused(data):
    save_classes(data / "pets" / "train", 10)
    (data / "pets" / "test").mkdir()
    assert problem().value == "test"


def test_what_systems_leave_in_folders_is_ignored(data):
    save_classes(data / "pets", 10)
    for name in ("desktop.ini", "Thumbs.db", ".DS_Store"):
        (data / "pets" / "cats" / name).write_bytes(b"x")
    assert sum(map(len, read(TaskSpec(source="file:pets")).labels.values())) == 20
