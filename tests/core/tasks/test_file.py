import json

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import SpecError
from core.models.tokenizer import ByteTokenizer
from core.spec.model import TaskSpec
from core.tasks import load, pictures
from core.tasks.base import InputFormat
from core.tasks.catalogue import read
from core.tasks.kinds import Kind
from core.tasks.preview import load_preview
from tests.core.tasks.pictures import save_classes, save_picture


def problem(source: str, **settings: object):
    """The single problem that reading the task reports."""
    with pytest.raises(SpecError) as error:
        read(TaskSpec(source=source, **settings))
    (only,) = error.value.problems
    return only


def write_csv(path, rows, header="text,label"):
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n")


ROWS = [(f"text number {i}", "even" if i % 2 == 0 else "odd") for i in range(40)]


def test_text_file_is_a_language_task(data):
    (data / "book.txt").write_text("".join(f"This is sentence {i} of the book.\n" for i in range(500)))
    task = load(TaskSpec(source="file:book.txt", length=32))
    task.prepare(InputFormat(tokenizer=ByteTokenizer()))
    assert task.kind is Kind.LANGUAGE_MODELLING and len(task.split("test")) > 50
    assert read(TaskSpec(source=f"file:{data}/book.txt")).texts["train"].startswith("This is sentence 0")


def test_table_is_a_text_task_with_stratified_splits(data):
    write_csv(data / "numbers.csv", ROWS)
    task = load(TaskSpec(source="file:numbers.csv"))
    task.prepare(InputFormat(tokenizer=ByteTokenizer()))
    assert task.kind is Kind.TEXT_CLASSIFICATION and task.n_classes == 2
    assert [len(task.split(split)) for split in ("train", "validation", "test")] == [28, 4, 8]
    batch = task.split("test").batch(torch.arange(8))
    assert batch["labels"].tolist().count(0) == 4
    shown = task.show("test", list(range(8)))
    assert all((int(each["text"].split()[-1]) % 2 == 0) == (each["label"] == "even") for each in shown)


def test_order_of_rows_changes_neither_splits_nor_identity(data):
    write_csv(data / "a.csv", ROWS)
    write_csv(data / "b.csv", ROWS[::-1])
    a, b = (read(TaskSpec(source=f"file:{name}.csv")) for name in "ab")
    assert a.texts == b.texts and a.content_hash == b.content_hash
    write_csv(data / "c.csv", [*ROWS[:-1], ("text number 39", "even")])
    assert read(TaskSpec(source="file:c.csv")).content_hash != a.content_hash


def test_json_lines_with_numbers_as_labels(data):
    lines = [json.dumps({"review": f"text {i}", "stars": i % 11}) for i in range(110)]
    (data / "reviews.jsonl").write_text("\n".join(lines))
    read_data = read(TaskSpec(source="file:reviews.jsonl", label_column="stars"))
    assert read_data.class_names == tuple(str(i) for i in range(11))  # by value: 2 before 10


def test_missing_column_is_named_with_those_that_there_are(data):
    write_csv(data / "t.csv", ROWS, header="phrase,mood")
    found = problem("file:t.csv", text_column="phrase")
    assert found.field == "task.label_column" and "phrase, mood" in found.message
    found = problem("file:t.csv", text_column="phrase", label_column="feeling")
    assert found.value == "feeling" and "phrase, mood" in found.message
    settings = {"text_column": "phrase", "label_column": "mood"}
    assert read(TaskSpec(source="file:t.csv", **settings)).class_names == ("even", "odd")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"text,label\nfine,x\nbroken\n", "line 3 has 1 fields instead of 2"),
        (b"text,label\n", "no rows"),
        (b"text,label\na,x\nb,\n", "empty in line 3"),
        (b"text,label\na,x\nb,x\n", "1 different"),
        (b"text,label\na,\xff\n", "not text in UTF-8"),
        (b'text,label\n"never closed,x\n', "line"),
    ],
)
def test_broken_table_says_where(data, content, words):
    (data / "t.csv").write_bytes(content)
    assert words in problem("file:t.csv").message


def test_broken_json_line_says_where(data):
    (data / "t.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n')
    assert "line 2 is not JSON" in problem("file:t.jsonl").message
    (data / "t.jsonl").write_text('{"text": "a", "label": 1}\n{"text": 7, "label": 2}\n')
    assert "7 in line 2" in problem("file:t.jsonl").message


def test_class_folders_are_an_image_task(data):
    save_classes(data / "pets", 20)
    task = load(TaskSpec(source="file:pets"))
    assert task.kind is Kind.IMAGE_CLASSIFICATION and task.image_shape == (1, 8, 8)
    assert [len(task.split(split)) for split in ("train", "validation", "test")] == [28, 4, 8]
    original = {np.asarray(Image.open(path)).tobytes(): path.parent.name for path in (data / "pets").rglob("*.png")}
    pixels, labels = task.data.pixels("test"), task.data.labels["test"]
    assert [original[picture.tobytes()] for picture in pixels] == [task.data.class_names[label] for label in labels]


def test_split_folders_are_kept_and_validation_is_cut_from_train(data):
    save_classes(data / "pets" / "train", 20)
    save_classes(data / "pets" / "test", 3)
    read_data = read(TaskSpec(source="file:pets"))
    assert {split: len(labels) for split, labels in read_data.labels.items()} == {
        "train": 36,
        "validation": 4,
        "test": 6,
    }
    assert any("test split are also in train" in warning for warning in read_data.warnings)


def test_pictures_of_different_sizes_and_colours_become_squares(data):
    save_classes(data / "pets", 10)
    save_picture(data / "pets" / "cats" / "wide.jpg", 5, size=(40, 20), mode="RGB")
    assert read(TaskSpec(source="file:pets")).shape == (3, 64, 64)
    assert read(TaskSpec(source="file:pets", image_size=16)).shape == (3, 16, 16)


def test_damaged_picture_is_named(data):
    save_classes(data / "pets", 10)
    damaged = data / "pets" / "dogs" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    found = problem("file:pets")
    assert found.value == "dogs/3.png" and "damaged" in found.message


def test_what_is_no_picture_is_named(data):
    save_classes(data / "pets", 10)
    (data / "pets" / "dogs" / "notes.txt").write_text("woof")
    assert problem("file:pets").value == "dogs/notes.txt"


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/passwd", "link.txt", "missing.txt", "pets/../../secret.txt"])
def test_path_outside_of_the_data_folders_is_refused(data, name):
    secret = data.parent / "secret.txt"
    secret.write_text("secret " * 1000)
    (data / "link.txt").symlink_to(secret)
    found = problem(f"file:{name}")
    assert found.field == "task.source" and "SLIMBOARD_DATA" in found.remedy and "secret s" not in str(found)


def test_link_out_of_an_image_folder_is_refused(data):
    save_classes(data / "pets", 10)
    outside = save_picture(data.parent / "outside.png", 1)
    (data / "pets" / "cats" / "linked.png").symlink_to(outside)
    assert "cats/linked.png" in problem("file:pets").message


def test_kind_that_does_not_fit_the_path_is_refused(data):
    save_classes(data / "pets", 10)
    assert "folder" in problem("file:pets", kind="language modelling").message


def test_table_can_be_read_as_running_text(data):
    write_csv(data / "t.csv", ROWS)
    assert read(TaskSpec(source="file:t.csv", kind="language modelling")).kind is Kind.LANGUAGE_MODELLING


def test_small_data_is_warned_about(data):
    write_csv(data / "t.csv", [*ROWS, ("alone", "rare"), ("text number 0", "even")])
    warnings = load_preview(TaskSpec(source="file:t.csv")).warnings
    assert any("only 8 examples" in warning for warning in warnings)
    assert any("rare" in warning for warning in warnings)
    assert any(warning.startswith("1 examples occur") for warning in warnings)


def test_picture_too_large_for_memory_is_refused_unread(data, monkeypatch):
    save_classes(data / "pets", 10)
    monkeypatch.setattr(pictures, "LARGEST_PICTURE", 100)
    save_picture(data / "pets" / "cats" / "huge.png", 1, size=(20, 20))
    found = problem("file:pets")
    assert found.value == "cats/huge.png" and "20 x 20" in found.message


def test_pictures_too_large_together_are_refused(data, monkeypatch):
    save_classes(data / "pets", 10)
    monkeypatch.setattr(pictures, "MOST_PIXEL_BYTES", 20 * 8 * 8 - 1)
    assert problem("file:pets").field == "task.image_size"


def test_deep_grey_is_scaled_not_cut_off(data):
    save_classes(data / "pets", 10)
    deep = np.full((8, 8), 0x40FF, dtype=np.uint16)
    Image.fromarray(deep).save(data / "pets" / "cats" / "deep.png")
    read_data = read(TaskSpec(source="file:pets"))
    pixels = np.concatenate([read_data.pixels(split) for split in read_data.labels])
    assert read_data.shape == (1, 8, 8) and any((picture == 0x40).all() for picture in pixels)


def test_validation_and_test_may_have_files_of_their_own(data):
    write_csv(data / "train.csv", ROWS)
    write_csv(data / "dev.csv", [("dev a", "even"), ("dev b", "odd")])
    (data / "test.jsonl").write_text('\n{"text": "test a", "label": "odd"}\n{"text": "test b", "label": "even"}')
    found = read(TaskSpec(source="file:train.csv", validation_file="dev.csv", test_file="file:test.jsonl"))
    assert len(found.texts["train"]) == 40 and set(found.texts["validation"]) == {"dev a", "dev b"}
    assert dict(zip(found.texts["test"], found.labels["test"].tolist(), strict=True)) == {"test a": 1, "test b": 0}
    only_test = read(TaskSpec(source="file:train.csv", test_file="test.jsonl"))
    assert [len(only_test.texts[split]) for split in ("train", "validation", "test")] == [36, 4, 2]


def test_where_the_files_lie_is_no_part_of_the_datas_identity(data):
    write_csv(data / "train.csv", ROWS)
    for name in ("a.csv", "b.csv"):
        write_csv(data / name, [("test a", "even"), ("test b", "odd")])
    a, b = (read(TaskSpec(source="file:train.csv", test_file=f"{name}.csv")) for name in "ab")
    assert a.content_hash == b.content_hash != read(TaskSpec(source="file:train.csv")).content_hash


def test_a_broken_label_is_named_with_its_file_and_line(data):
    write_csv(data / "train.csv", ROWS)
    (data / "test.jsonl").write_text('{"text": "a", "label": "odd"}\n\n{"text": "b", "label": ["even"]}')
    assert "in line 3 of test.jsonl" in problem("file:train.csv", test_file="test.jsonl").message


def test_running_text_and_pictures_take_splits_of_their_own(data):
    for name in ("train", "test"):
        (data / f"{name}.txt").write_text(f"A line of {name}.\n" * 500)
    corpus = read(TaskSpec(source="file:train.txt", test_file="test.txt"))
    assert corpus.texts["test"] == "A line of test.\n" * 500 and "test" not in corpus.texts["validation"]
    save_classes(data / "pets", 20)
    save_classes(data / "more", 3)
    found = read(TaskSpec(source="file:pets", validation_file="more"))
    assert [len(found.labels[split]) for split in ("train", "validation", "test")] == [32, 6, 8]
    for name in ("train", "test"):
        save_classes(data / "split" / name, 3)
    assert problem("file:pets", test_file="split").field == "task.test_file"
    assert "SLIMBOARD_DATA" in problem("file:pets", test_file="../pets").remedy
    assert problem("file:pets", test_file="test.txt").field == "task.test_file"
