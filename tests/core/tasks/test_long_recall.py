import re

import numpy as np
import pytest
import torch

from core.errors import SpecError
from core.models import zoo
from core.models.encoder import EncoderSettings
from core.models.gpt import GptSettings
from core.models.tokenizer import ByteTokenizer
from core.spec.model import TaskSpec
from core.tasks import load
from core.tasks.base import InputFormat
from core.tasks.preview import load_preview
from core.tasks.sources import long_recall
from core.tasks.sources.long_recall import KEYS, VALUES, LongRecall, frequent_guess

FILLER = "[. ]"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_recall, "EXAMPLES", {"train": 40, "validation": 20, "test": 400})
    monkeypatch.setattr(long_recall, "FEWEST", {"train": 4, "validation": 4, "test": 4})


def read(**settings):
    return LongRecall(**settings).read("long-recall")


def looked_up(text: str, distance: int, pairs: int) -> tuple[dict[str, str], str]:
    """The dictionary that a sequence begins with, and what follows the filler after it."""
    match = re.fullmatch(rf"{FILLER}*((?:[a-zA-Z]\S){{{pairs}}}){FILLER}{{{distance}}}(\S+)", text)
    assert match is not None, text
    return dict(zip(match[1][::2], match[1][1::2], strict=True)), match[2]


@pytest.mark.parametrize("distance", [0, 17])
@pytest.mark.parametrize("pairs", [1, 6])
def test_every_pair_is_asked_for_once_at_the_distance(distance, pairs):
    data = read(length=64, distance=distance, pairs=pairs)
    orders = set()
    for text in data.texts["test"]:
        dictionary, asked = looked_up(text, distance, pairs)
        assert len(text) == 65 and len(dictionary) == pairs and set(asked[::2]) == set(dictionary)
        assert "".join(text[place] for place in data.answers) == "".join(dictionary[key] for key in asked[::2])
        orders.add(tuple(list(dictionary).index(key) for key in asked[::2]))
    assert len(orders) > 50 or pairs == 1


def test_one_key_is_asked_of_a_classifier():
    data = read(variant="classify", length=64, distance=20, pairs=5)
    for text, label in zip(data.texts["test"], data.labels["test"], strict=True):
        dictionary, asked = looked_up(text, 20, 5)
        assert asked[0] == "?" and len(text) == 64
        assert dictionary[asked[1]] == data.class_names[label]
    assert set(data.labels["test"]) == set(range(16))


def test_copy_asks_for_the_symbols_again():
    data = read(variant="copy", length=64, distance=30, pairs=9)
    for text in data.texts["test"]:
        match = re.fullmatch(rf"{FILLER}*(\S{{9}}){FILLER}{{30}}\?(\S{{9}})", text)
        assert match is not None and match[1] == match[2]
        assert "".join(text[place] for place in data.answers) == match[2]


@pytest.mark.parametrize("variant", ["recall", "copy", "classify"])
def test_without_a_distance_it_is_as_long_as_fits(variant):
    for text in read(variant=variant, length=128).texts["test"]:
        assert text[0] not in ". "


def test_places_in_the_dictionary_tell_nothing_about_what_is_asked_first():
    data = read(length=64, distance=0, pairs=4, vocabulary=4)
    first = [list(looked_up(text, 0, 4)[0]).index(text[-8]) for text in data.texts["test"]]
    assert min(first.count(place) for place in range(4)) > 60  # of 400; 100 on average


def test_alphabets_are_apart():
    used = [set(KEYS), set(VALUES), set(". "), set("?")]
    assert [len(each) for each in used] == [40, 40, 2, 1] and len(set.union(*used)) == 83


def test_guess_of_the_remaining_values_by_hand():
    asked = np.array([[3, 1, 3, 3]])  # 3 is 3 of 4, then 2 of 3, then certain
    assert frequent_guess(asked, 5).tolist() == [[3 / 4, 2 / 3, 1, 1]]


def test_longer_sequences_are_fewer():
    assert len(read(length=1024).texts["test"]) == 100


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"pairs": 17}, r"task.pairs = 17.*exceeds the 16 distinct keys"),
        ({"pairs": 17, "vocabulary": 40, "length": 64}, r"task.pairs = 17.*do not fit into 64 tokens"),
        ({"pairs": 8, "length": 64, "distance": 34}, r"task.distance = 34.*leave 33.*at most 33"),
    ],
)
def test_what_does_not_fit_is_refused(settings, problem):
    with pytest.raises(SpecError, match=problem):
        read(**settings)


def prepared(context: int | None = None, **settings):
    task = load(TaskSpec(source="builtin:long-recall", **settings))
    task.prepare(InputFormat(tokenizer=ByteTokenizer(), length=context))
    return task


def test_labels_are_the_answers_one_token_ahead():
    task = prepared(length=64, pairs=3)
    batch = task.split("test").batch(torch.tensor([5]))
    assert batch["input_ids"].shape == batch["labels"].shape == (1, 64)
    text = task.data.texts["test"][5]
    expected = [ord(text[i + 1]) if i + 1 in task.data.answers else -100 for i in range(64)]
    assert batch["labels"][0].tolist() == expected
    assert batch["input_ids"][0].tolist() == list(text[:-1].encode())


def test_only_answers_count_in_loss_and_score():
    task = prepared(length=64, pairs=3)
    batch = task.split("test").batch(torch.arange(10))
    scored = batch["labels"] >= 0
    logits = torch.zeros(10, 64, 257)
    logits[~scored] = torch.randn(int((~scored).sum()), 257)
    logits.scatter_(2, batch["labels"].clamp(min=0)[..., None], 20.0)
    logits[0, scored[0].nonzero()[0, 0]] = 0.0  # one answer is guessed: 1 nat short of certainty 29 times
    logits[0, scored[0].nonzero()[0, 0], 7] = 1.0
    scores = task.summarize(task.per_example(logits, batch))
    assert next(iter(scores)) == task.score.name == "answer accuracy"
    assert scores["answer accuracy"] == pytest.approx(100 * 29 / 30)
    assert scores["faultless sequences"] == pytest.approx(90)
    assert scores["cross entropy"] == pytest.approx(task.loss(logits, batch).item(), rel=1e-4)


def test_another_tokenizer_keeps_the_answers():
    class Pairs(ByteTokenizer):
        """Merges two letters of filler into one token."""

        def encode(self, text):
            return list(text.replace("..", "\x01").encode())

    task = load(TaskSpec(source="builtin:long-recall", length=64, pairs=3))
    task.prepare(InputFormat(tokenizer=Pairs()))
    batch = task.split("test").batch(torch.arange(20))
    for labels, text in zip(batch["labels"], task.data.texts["test"], strict=False):
        assert labels[labels >= 0].tolist() == [ord(text[place]) for place in task.data.answers]
    assert batch["labels"].shape[1] < 64


def test_sequence_longer_than_the_model_is_refused():
    with pytest.raises(SpecError, match=r"task.length = 64.*32 tokens"):
        prepared(32, length=64)


@pytest.mark.parametrize(
    ("variant", "source", "settings"),
    [
        ("recall", "builtin:gpt", GptSettings(dim=16, depth=1)),
        ("copy", "builtin:gpt", GptSettings(dim=16, depth=1)),
        ("classify", "builtin:encoder", EncoderSettings(dim=16, depth=1)),
    ],
)
def test_the_built_in_model_takes_it(variant, source, settings):
    task = load(TaskSpec(source="builtin:long-recall", variant=variant, length=64))
    config, input_format = zoo.resolve(source, settings, task)
    task.prepare(input_format)
    model = zoo.initialized(config, torch.Generator().manual_seed(0))
    batch = task.split("test").batch(torch.arange(4))
    logits = model(**{key: value for key, value in batch.items() if key != "labels"})
    task.loss(logits, batch).backward()
    assert all(score == score for score in task.summarize(task.per_example(logits.detach(), batch)).values())


def test_preview_shows_both_ends_the_answers_and_what_guessing_gives():
    seen = load_preview(TaskSpec(source="builtin:long-recall", length=2048, pairs=2))
    assert seen.counts == {"train": 5, "calibration": 5, "validation": 4, "test": 50}
    item = seen.items[0]
    assert item.text.endswith(item.label[-1]) and " … " in item.text and len(item.label) == 2
    any_value, remaining = seen.guesses.values()
    assert any_value == 6.25 and 75 <= remaining < 80  # 1/2 (or, in one of 16, 1), then 1
