"""Calibration data: their sources and mixes, what is drawn of them, and what is refused."""

import pytest
import torch

from core import tasks
from core.calibration import load_calibration
from core.calibration.data import apportioned
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.tokenizer import ByteTokenizer
from core.settings import settings
from core.spec.model import CalibrationSpec, TaskSpec
from core.tasks.base import InputFormat, labels_of
from tests.core.fakes import context
from tests.core.fakes import plane_subject as plane
from tests.core.sentences import save_pairs, save_texts, sentences


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_DATA", str(tmp_path))
    settings.cache_clear()
    save_texts(tmp_path)
    save_pairs(tmp_path)
    rows = [f"{text},{'long' if len(text) > 12 else 'short'}" for text in sentences(80)]
    (tmp_path / "labelled.csv").write_text("\n".join(["text,label", *rows]))
    yield tmp_path
    settings.cache_clear()


LANGUAGE = TaskSpec(source="file:texts.txt", length=16)
EMBEDDINGS = TaskSpec(source="file:pairs.csv", kind="embeddings")
LABELLED = TaskSpec(source="file:labelled.csv")


def made(task_spec: TaskSpec, **changes: object):
    """A prepared task and its calibration set."""
    task = tasks.load(task_spec)
    found = load_calibration(CalibrationSpec.model_validate(changes), task_spec, task)
    format = InputFormat(tokenizer=ByteTokenizer(), length=64)
    task.prepare(format)
    found.prepare(task, format)
    return task, found


def drawn(found, n_examples: int = 12, seed: int = 0) -> list:
    return list(found.draw(n_examples, 5, lambda purpose: torch.Generator().manual_seed(seed + len(purpose))))


def rows_of(batches: list) -> list:
    return [row for _, batch in batches for row in batch["input_ids"].tolist()]


def refusal(task_spec: TaskSpec, **changes: object) -> str:
    with pytest.raises(SpecError) as error:
        made(task_spec, **changes)
    return str(error.value)


@pytest.mark.usefixtures("folder")
def test_by_default_it_is_the_calibration_split_of_the_task_as_before():
    task, found = made(LANGUAGE)
    assert found.identity(task) is None
    split = task.split("calibration")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(len("calibration")))[:12]
    assert rows_of(drawn(found)) == split.batch(order)["input_ids"].tolist()
    assert [len(batch["labels"]) for _, batch in drawn(found)] == [5, 5, 2]


@pytest.mark.usefixtures("folder")
def test_a_seed_of_its_own_draws_the_same_whatever_the_runs_seed():
    task, found = made(LANGUAGE, seed=3)
    other = made(LANGUAGE, seed=4)[1]
    assert rows_of(drawn(found, seed=0)) == rows_of(drawn(found, seed=9))
    assert rows_of(drawn(found)) != rows_of(drawn(other))
    assert found.identity(task) != other.identity(task)


@pytest.mark.usefixtures("folder")
def test_a_mix_gives_each_source_its_part():
    sources = ["task", {"source": "builtin:python-docs", "weight": 3}]
    task, found = made(LANGUAGE, sources=sources)
    counts = {"task": 0, "builtin:python-docs": 0}
    for name, batch in drawn(found, 40):
        counts[name] += len(batch["input_ids"])
        assert batch["input_ids"].shape[1] == 16  # both in the task's length
    assert counts == {"task": 10, "builtin:python-docs": 30}
    shares = [share for _, share in found.identity(task)["sources"]]
    assert shares == [0.25, 0.75]


@pytest.mark.usefixtures("folder")
def test_windows_may_be_longer_than_the_tasks():
    task, found = made(LANGUAGE, length=32)
    assert {batch["input_ids"].shape[1] for _, batch in drawn(found)} == {32}
    assert task.split("test").batch(torch.arange(1))["input_ids"].shape[1] == 16
    assert found.identity(task)["length"] == 32


@pytest.mark.usefixtures("folder")
def test_running_text_calibrates_a_classifier_line_by_line_without_labels():
    _, found = made(LABELLED, sources="file:texts.txt")
    ((name, batch), *_) = drawn(found)
    assert name == "file:texts.txt" and set(batch) == {"input_ids", "attention_mask"}
    texts = {bytes(i for i in row if i < 256).decode() for row in rows_of(drawn(found))}
    assert texts <= set(sentences(120))
    with pytest.raises(SpecError, match="no labels of the task's own"):
        labels_of(batch)


@pytest.mark.usefixtures("folder")
def test_data_of_other_classes_lose_their_labels_and_those_of_the_same_keep_them():
    same = made(LABELLED, sources={"source": "file:labelled.csv", "validation": 0.2})[1]
    assert "labels" in drawn(same)[0][1]
    pairs = made(LABELLED, sources={"source": "file:pairs.csv", "kind": "embeddings"})[1]
    assert "labels" not in drawn(pairs)[0][1]
    scored = made(EMBEDDINGS, sources={"source": "file:pairs.csv", "kind": "embeddings", "validation": 0.2})[1]
    assert drawn(scored)[0][1]["input_ids"].dim() == 3 and "labels" in drawn(scored)[0][1]


@pytest.mark.usefixtures("folder")
def test_what_does_not_suit_the_task_is_refused():
    assert "calibration.sources[1].source = 'builtin:digits': has image classification data" in refusal(
        LANGUAGE, sources=["task", "builtin:digits"]
    )
    assert "calibration.sources[0].source = 'file:missing.txt'" in refusal(LANGUAGE, sources="file:missing.txt")
    assert "calibration.length = 32: is only for language models" in refusal(LABELLED, length=32)
    assert "calibration.sources[0].test = 0.3" in refusal(LANGUAGE, sources={"source": "task", "test": 0.3})
    digits = TaskSpec(source="builtin:digits")
    assert "has images of 1 x 32 x 32, but the model takes 1 x 8 x 8" in refusal(digits, sources="builtin:shapes")


@pytest.mark.parametrize(
    ("total", "weights", "sizes", "expected"),
    [
        (10, [1, 1, 1], [99, 99, 99], [4, 3, 3]),
        (9, [5, 3, 2], [99, 99, 99], [4, 3, 2]),  # 4.5, 2.7 and 1.8: the largest remainders get one more
        (10, [1, 1], [3, 99], [3, 7]),
        (10, [8, 1, 1], [4, 2, 99], [4, 2, 4]),
        (10, [1, 1], [2, 3], [2, 3]),
        (1, [1, 9], [5, 5], [0, 1]),
    ],
)
def test_parts_are_in_proportion_to_the_weights(total, weights, sizes, expected):
    assert apportioned(total, weights, sizes) == expected


def test_a_step_notes_what_it_drew_once():
    subject = plane()
    step = context(subject, MemoryRecord())
    for _ in range(3):  # in rounds
        list(step.calibration(40))
    next(step.calibration(50))
    assert step.coverage.drawn == {"task": 40} and step.coverage.tokens == 0
