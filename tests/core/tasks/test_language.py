import math

import pytest
import torch

from core.errors import SpecError
from core.models.tokenizer import ByteTokenizer
from core.tasks.base import InputFormat
from core.tasks.data import CorpusData
from core.tasks.language import LanguageTask
from core.tasks.windows import IGNORED

TEXTS = {"train": "abcdefghij", "validation": "abcdef", "test": "aßcdefg"}


def prepared(length: int = 3, entropy: float | None = None) -> LanguageTask:
    task = LanguageTask("test", CorpusData(TEXTS, length, "hash", entropy))
    task.prepare(InputFormat(tokenizer=ByteTokenizer()))
    return task


def everything(task: LanguageTask, split: str) -> dict[str, torch.Tensor]:
    return task.split(split).batch(torch.arange(len(task.split(split))))


def test_labels_are_the_next_tokens():
    batch = everything(prepared(), "train")
    assert ["".join(map(chr, row)) for row in batch["input_ids"]] == ["abc", "def", "ghi"]
    assert ["".join(map(chr, row)) for row in batch["labels"]] == ["bcd", "efg", "hij"]


def test_every_token_but_the_first_of_a_test_is_predicted_once():
    batch = everything(prepared(), "test")
    predicted = batch["labels"][batch["labels"] != IGNORED].tolist()
    assert predicted == list("ßcdefg".encode())
    assert batch["labels"][-1].tolist() == [ord("g"), IGNORED, IGNORED]
    assert batch["input_ids"][-1].tolist() == [ord("f"), ByteTokenizer.pad_id, ByteTokenizer.pad_id]


def test_bits_per_character_of_a_uniform_guess_by_hand():
    task = prepared()
    batch = everything(task, "test")
    logits = torch.zeros(*batch["labels"].shape, 257)
    examples = task.per_example(logits, batch)
    assert examples["tokens"].tolist() == [3, 3, 1]  # ß is two bytes
    assert examples["characters"].tolist() == [2, 3, 1]
    assert examples["nats"].tolist() == pytest.approx([3 * math.log(257), 3 * math.log(257), math.log(257)])
    scores = task.summarize(examples)
    assert next(iter(scores)) == task.score.name == "bits per character"
    assert scores["bits per character"] == pytest.approx(7 * math.log2(257) / 6)
    assert scores["perplexity"] == pytest.approx(257)


def test_confident_right_answers_by_hand():
    task = prepared()
    batch = everything(task, "validation")  # 5 predicted letters in windows of 3 and 2
    logits = torch.zeros(2, 3, 257)
    logits.scatter_(2, batch["labels"].clamp(min=0)[..., None], math.log(256 * 3))  # probability 3/4
    scores = task.summarize(task.per_example(logits, batch))
    assert scores["bits per character"] == pytest.approx(math.log2(4 / 3), rel=1e-4)
    assert scores["token accuracy"] == 100


def test_subset_is_scored_by_its_own_sums():
    task = prepared(entropy=1.5)
    examples = {
        "nats": torch.tensor([6.0, 1.0]) * math.log(2),
        "characters": torch.tensor([2.0, 1.0]),
        "tokens": torch.tensor([3.0, 1.0]),
        "correct": torch.tensor([0.0, 1.0]),
    }
    whole = task.summarize(examples)
    assert whole["bits per character"] == pytest.approx(7 / 3)  # not the mean of 3 and 1
    assert whole["excess over the source's entropy"] == pytest.approx(7 / 3 - 1.5)
    first = task.summarize({key: value[:1] for key, value in examples.items()})
    assert first["bits per character"] == pytest.approx(3) and first["perplexity"] == pytest.approx(4)


def test_loss_is_the_mean_over_scored_tokens():
    task = prepared()
    batch = everything(task, "test")
    logits = torch.randn(3, 3, 257, generator=torch.Generator().manual_seed(0))
    examples = task.per_example(logits, batch)
    assert task.loss(logits, batch).item() == pytest.approx((examples["nats"].sum() / 7).item(), rel=1e-4)


def test_calibration_is_a_part_of_train():
    task = prepared()
    train = {tuple(row) for row in everything(task, "train")["input_ids"].tolist()}
    assert {tuple(row) for row in everything(task, "calibration")["input_ids"].tolist()} <= train


def test_window_is_no_longer_than_the_model_takes():
    task = LanguageTask("test", CorpusData(TEXTS, 6, "hash"))
    task.prepare(InputFormat(tokenizer=ByteTokenizer(), length=2))
    assert task.length == 2 and everything(task, "train")["input_ids"].shape == (4, 2)


def test_text_without_a_single_window_is_refused():
    with pytest.raises(SpecError, match=r"task.length = 64.*train split of 10 tokens"):
        prepared(length=64)


def test_windows_are_cut_before_a_split_is_taken():
    with pytest.raises(RuntimeError, match="prepare the task"):
        LanguageTask("test", CorpusData(TEXTS, 3, "hash")).split("train")


def test_windows_are_shown_as_text():
    assert prepared().show("train", [1]) == [{"text": "def", "label": ""}]
