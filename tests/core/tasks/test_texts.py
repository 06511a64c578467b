import numpy as np
import torch

from core.models.tokenizer import ByteTokenizer
from core.tasks.base import InputFormat
from core.tasks.data import TextData
from core.tasks.texts import TextTask


def make_task(length: int = 5) -> TextTask:
    splits = ("train", "validation", "test")
    labels = dict.fromkeys(splits, np.array([1, 0, 1]))
    texts = dict.fromkeys(splits, ("ab", "abcdefgh", ""))
    task = TextTask("test", TextData(("no", "yes"), labels, texts, length, "hash"))
    task.prepare(InputFormat(tokenizer=ByteTokenizer(), length=64))
    return task


def test_batch_is_padded_to_its_longest_text_and_no_further():
    split = make_task().split("test")
    batch = split.batch(torch.tensor([0, 1]))
    assert batch["input_ids"].tolist() == [[97, 98, 256, 256, 256], [97, 98, 99, 100, 101]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert split.batch(torch.tensor([0]))["input_ids"].shape == (1, 2)


def test_empty_text_still_has_a_token_to_attend_to():
    assert make_task().split("test").batch(torch.tensor([2]))["attention_mask"].tolist() == [[1]]


def test_people_see_the_text_and_the_name_of_its_class():
    assert make_task().show("calibration", [1]) == [{"text": "abcdefgh", "label": "no"}]
