"""Folders that `datasets` reads; the Hub itself is out of a test's reach."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow

from core.errors import SpecError
from core.spec.model import TaskSpec
from core.tasks.catalogue import read
from core.tasks.kinds import Kind
from core.tasks.sources.hugging_face import _opened

TEXTS = Features({"sentence": Value("string"), "label": ClassLabel(names=["bad", "good"])})


def texts(n: int, start: int = 0, label: int | None = None) -> Dataset:
    rows = range(start, start + n)
    labels = [i % 2 if label is None else label for i in rows]
    return Dataset.from_dict({"sentence": [f"text {i}" for i in rows], "label": labels}, features=TEXTS)


def test_saved_data_set_keeps_its_splits_and_names(data):
    DatasetDict(train=texts(100), validation=texts(20, 100), test=texts(30, 200)).save_to_disk(str(data / "saved"))
    found = read(TaskSpec(source="hf:saved"))
    assert found.kind is Kind.TEXT_CLASSIFICATION and found.class_names == ("bad", "good")
    assert {split: len(labels) for split, labels in found.labels.items()} == {
        "train": 100,
        "validation": 20,
        "test": 30,
    }
    assert sorted(found.texts["test"]) == sorted(f"text {i}" for i in range(200, 230))
    for text, label in zip(found.texts["test"], found.labels["test"], strict=True):
        assert int(text.split()[1]) % 2 == label


def test_missing_splits_are_cut_from_train(data):
    texts(100).save_to_disk(str(data / "saved"))
    found = read(TaskSpec(source="hf:saved"))
    assert [len(found.labels[split]) for split in ("train", "validation", "test")] == [70, 10, 20]


def test_test_split_with_secret_labels_is_passed_over(data):
    DatasetDict(train=texts(100), test=texts(30, 200, label=-1)).save_to_disk(str(data / "saved"))
    found = read(TaskSpec(source="hf:saved"))
    assert len(found.labels["test"]) == 20 and not set(found.texts["test"]) & {f"text {i}" for i in range(200, 230)}


def test_parquet_folder_of_running_text(data):
    (data / "book").mkdir()
    Dataset.from_dict({"text": [f"line {i}" for i in range(1000)]}).to_parquet(str(data / "book" / "train.parquet"))
    found = read(TaskSpec(source="hf:book"))
    assert found.kind is Kind.LANGUAGE_MODELLING and found.texts["train"].startswith("line 0\nline 1\n")


def test_pictures(data):
    pictures = [Pillow.fromarray(np.full((6, 6), i, dtype=np.uint8)) for i in range(50)]
    features = Features({"img": Image(), "fine_label": ClassLabel(names=["even", "odd"])})
    rows = {"img": pictures, "fine_label": [i % 2 for i in range(50)]}
    DatasetDict(train=Dataset.from_dict(rows, features=features)).save_to_disk(str(data / "saved"))
    found = read(TaskSpec(source="hf:saved"))
    assert found.kind is Kind.IMAGE_CLASSIFICATION and found.shape == (1, 6, 6)
    assert (found.pixels("test")[:, 0, 0, 0] % 2).tolist() == found.labels["test"].tolist()


def test_a_picture_that_only_names_a_file_must_lie_among_the_users_data(data, tmp_path):
    for file in (tmp_path / "secret.png", data / "shown.png"):
        Pillow.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(file)
    assert _opened({"bytes": None, "path": str(data / "shown.png")}).size == (6, 6)
    assert _opened({"bytes": None, "path": str(tmp_path / "secret.png")}) is None
    assert _opened({"bytes": None, "path": str(data / ".." / "secret.png")}) is None
    assert _opened({"bytes": None, "path": "http://127.0.0.1/picture.png"}) is None


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"test_split": "exam"}, "task.test_split", "train, dev"),
        ({"label_column": "mood"}, "task.label_column", "sentence, label"),
        ({"kind": "image classification"}, "task.image_column", "sentence, label"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(data, settings, field, words):
    DatasetDict(train=texts(50), dev=texts(20, 50)).save_to_disk(str(data / "saved"))
    with pytest.raises(SpecError) as error:
        read(TaskSpec(source="hf:saved", **settings))
    assert error.value.problems[0].field == field and words in error.value.problems[0].message


def test_unreachable_hub_is_said(data, monkeypatch):
    def unreachable(*arguments: object, **settings: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset_builder", unreachable)
    with pytest.raises(SpecError, match="cannot reach"):
        read(TaskSpec(source="hf:owner/name"))


def test_most_examples_bound_what_is_read(data):
    texts(500).save_to_disk(str(data / "saved"))
    found = read(TaskSpec(source="hf:saved", max_examples=100))
    assert sum(len(labels) for labels in found.labels.values()) == 100


def test_folder_elsewhere_is_refused(data):
    with pytest.raises(SpecError, match="SLIMBOARD_DATA"):
        read(TaskSpec(source="hf:/etc"))


@pytest.mark.parametrize(
    "name", ["saved.py", "train.pth", "train.pt", "deep/train.pkl", "train.tar", ".train.tar", "train.zip", "train"]
)
def test_folder_with_more_than_plain_data_is_refused(data, monkeypatch, name):
    texts(100).save_to_disk(str(data / "saved"))
    (data / "saved" / "README.md").write_text("# Texts")
    assert read(TaskSpec(source="hf:saved")).class_names == ("bad", "good")
    monkeypatch.setattr("datasets.load_from_disk", lambda *_: pytest.fail("the folder was opened"))
    (data / "saved" / name).parent.mkdir(exist_ok=True)
    (data / "saved" / name).write_bytes(b"")
    with pytest.raises(SpecError) as error:
        read(TaskSpec(source="hf:saved"))
    problem = error.value.problems[0]
    assert problem.field == "task.source" and problem.message.endswith(f": {name}")
    assert "Remove it" in problem.remedy and ".parquet" in problem.remedy


def test_description_cannot_name_files_elsewhere(data, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (data / "book").mkdir()
    (data / "book" / "train.txt").write_text("".join(f"line {i}\n" for i in range(1000)))
    described = "---\nconfigs:\n- config_name: default\n  data_files: {}\n---\n"
    (data / "book" / "README.md").write_text(described.format(tmp_path / "secret.txt"))
    with pytest.raises(SpecError) as error:
        read(TaskSpec(source="hf:book"))
    assert error.value.problems[0].message == f"refers to a file outside it: {tmp_path / 'secret.txt'}"
    (data / "book" / "README.md").write_text(described.format("train.txt"))
    assert read(TaskSpec(source="hf:book")).texts["train"].startswith("line 0\n")


def test_hub_data_set_cannot_name_files_of_the_worker(data, monkeypatch):
    builder = SimpleNamespace(config=SimpleNamespace(data_files={"train": ["/etc/hostname"]}))
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *arguments, **settings: builder)
    with pytest.raises(SpecError, match="refers to a file outside it: /etc/hostname"):
        read(TaskSpec(source="hf:owner/name"))


def test_saved_data_set_cannot_name_files_elsewhere(data, tmp_path):
    texts(100).save_to_disk(str(tmp_path / "secret"))
    texts(100).save_to_disk(str(data / "saved"))
    state = json.loads((data / "saved" / "state.json").read_text())
    state["_data_files"] = [{"filename": str(next((tmp_path / "secret").glob("*.arrow")))}]
    (data / "saved" / "state.json").write_text(json.dumps(state))
    with pytest.raises(SpecError, match="refers to a file outside it"):
        read(TaskSpec(source="hf:saved"))


def test_folder_of_the_workers_own_is_not_taken_for_a_repository(data, tmp_path, monkeypatch):
    (tmp_path / "own" / "secrets").mkdir(parents=True)
    (tmp_path / "own" / "secrets" / "train.csv").write_text("text,label\na,1\nb,2\n")
    monkeypatch.chdir(tmp_path)
    for name in ("own/secrets", "own/../own/secrets", "../own", "csv", "text"):
        with pytest.raises(SpecError, match="SLIMBOARD_DATA"):
            read(TaskSpec(source=f"hf:{name}"))


def test_a_list_of_labels_is_refused_with_its_row(data):
    rows = {"text": [f"text {i}" for i in range(20)], "label": [["a"] if i % 2 else ["a", "b"] for i in range(20)]}
    Dataset.from_dict(rows).save_to_disk(str(data / "saved"))
    with pytest.raises(SpecError, match="in train row 1, which is not a single label"):
        read(TaskSpec(source="hf:saved"))


def test_a_split_that_lists_the_classes_in_another_order_keeps_their_names(data):
    other = Features({"sentence": Value("string"), "label": ClassLabel(names=["good", "bad"])})
    test = Dataset.from_dict({"sentence": ["fine", "awful"], "label": ["good", "bad"]}, features=other)
    DatasetDict(train=texts(100), test=test).save_to_disk(str(data / "saved"))
    found = read(TaskSpec(source="hf:saved"))
    names = [found.class_names[label] for label in found.labels["test"]]
    assert dict(zip(found.texts["test"], names, strict=True)) == {"fine": "good", "awful": "bad"}


def test_pictures_of_12_bits_keep_their_contrast(data):
    pictures = [Pillow.fromarray(np.full((6, 6), 80 * i, dtype=np.uint16)) for i in range(50)]
    features = Features({"img": Image(), "label": ClassLabel(names=["even", "odd"])})
    rows = {"img": pictures, "label": [i % 2 for i in range(50)]}
    Dataset.from_dict(rows, features=features).save_to_disk(str(data / "saved"))
    found = read(TaskSpec(source="hf:saved"))
    values = sorted(int(p[0, 0, 0]) for split in found.labels for p in found.pixels(split))
    assert values == [80 * i // 16 for i in range(50)]
