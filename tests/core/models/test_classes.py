"""Outputs of a classifier are matched with a task's classes by name, wherever the model comes from."""

import dataclasses
import json

import pytest
import torch
import transformers

import core.models
from core.errors import SpecError
from core.models.classes import match_classes
from core.spec.model import ModelSpec
from core.tasks.base import Kind
from tests.core.models.conftest import IMAGE, TEXT, Shape, tokenizer

NAMES = ("neg", "neutral", "pos")
REVIEWS = Shape("file:reviews.csv", Kind.TEXT_CLASSIFICATION, n_classes=3, length=24, class_names=NAMES)


@pytest.mark.parametrize(
    ("outputs", "classes", "order"),
    [
        (["pos", "neg"], ["neg", "pos"], (1, 0)),
        (["neg", "pos"], ["neg", "pos"], (0, 1)),
        (["c", "a", "b"], ["a", "b", "c"], (1, 2, 0)),
        (["Not_Entailment", "ENTAILMENT"], ["entailment", "not entailment"], (1, 0)),
        (["1", "0"], ["0.0", "1.0"], (1, 0)),
        (["10", "2", "1e0"], ["1", "2", "10.00"], (2, 1, 0)),
        (["A", "a"], ["a", "A"], (1, 0)),  # distinct only by case: exactly
        (["crane", "crane", "owl"], ["crane", "crane", "owl"], (0, 1, 2)),  # ImageNet has a name twice
    ],
)
def test_equal_names_are_matched_in_any_order_and_notation(outputs, classes, order):
    match = match_classes("hf:x", outputs, classes)
    assert match.order == order and not match.note


@pytest.mark.parametrize(
    ("outputs", "classes", "order"),
    [
        (["LABEL_0", "LABEL_1"], ["neg", "pos"], (0, 1)),
        (["LABEL_1", "LABEL_0"], ["neg", "pos"], (1, 0)),  # LABEL_0 means number 0, wherever it is listed
        (["label_2", "label_0", "label_1"], ["3", "5", "7"], (1, 2, 0)),
        (["neg", "pos"], ["LABEL_1", "LABEL_0"], (1, 0)),
    ],
)
def test_placeholders_go_by_number_with_a_note(outputs, classes, order):
    match = match_classes("hf:x", outputs, classes)
    assert match.order == order
    assert match.note.startswith("hf:x") and f"{outputs[order[0]]} = {classes[0]}" in match.note


@pytest.mark.parametrize(
    ("outputs", "classes"),
    [
        (["cat", "dog"], ["neg", "pos"]),
        (["neg", "pos"], ["0", "1"]),
        (["0", "1"], ["1", "2"]),
        (["LABEL_0", "LABEL_2"], ["neg", "pos"]),
        (["a", "a", "b"], ["a", "b", "b"]),
    ],
)
def test_other_names_are_not_matched(outputs, classes):
    assert match_classes("hf:x", outputs, classes) is None


@pytest.fixture
def save(data_folder):
    """Saves a classifier whose outputs have these names, and gives it back with its folder."""

    def made(names, family="bert", **changes):
        torch.manual_seed(0)
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        sizes = {"intermediate_size": 48, "max_position_embeddings": 64, **TEXT}
        if family == "vit":
            config = transformers.ViTConfig(**{**IMAGE, "num_labels": len(names), **labels})
            model = transformers.ViTForImageClassification(config)
        elif family == "roberta":
            config = transformers.RobertaConfig(pad_token_id=0, **sizes, **labels)
            model = transformers.RobertaForSequenceClassification(config)
        else:
            config = transformers.BertConfig(**sizes, **labels)
            model = transformers.BertForSequenceClassification(config)
        for head in (m for n, m in model.named_modules() if n in ("classifier", "classifier.out_proj")):
            if isinstance(head, torch.nn.Linear):
                torch.nn.init.normal_(head.bias)
        folder = data_folder / "model"
        model.eval().save_pretrained(folder)
        if family != "vit":
            tokenizer().save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return model, folder

    return made


def load(folder, task, **settings):
    return core.models.load(ModelSpec(source=f"hf:{folder}", **settings), task, torch.Generator().manual_seed(0))


def refusal(folder, task, **settings):
    with pytest.raises(SpecError) as caught:
        core.models.describe(ModelSpec(source=f"hf:{folder}", **settings), task)
    (problem,) = caught.value.problems
    return problem


IMAGES = {"pixel_values": torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))}
TEXTS = {"input_ids": torch.randint(3, 20, (2, 12), generator=torch.Generator().manual_seed(1))}


@torch.no_grad()
@pytest.mark.parametrize("family", ["bert", "roberta", "vit"])
def test_a_loaded_model_answers_in_the_order_of_the_task(family, save):
    saved, folder = save(["pos", "neg", "neutral"], family)
    kind, batch = (Kind.IMAGE_CLASSIFICATION, IMAGES) if family == "vit" else (Kind.TEXT_CLASSIFICATION, TEXTS)
    task = dataclasses.replace(REVIEWS, kind=kind, image_shape=(1, 8, 8))
    loaded = load(folder, task)
    torch.testing.assert_close(loaded.module(**batch).logits, saved(**batch).logits[:, [1, 2, 0]], rtol=1e-5, atol=1e-6)
    assert list(loaded.config["config"]["id2label"].values()) == list(NAMES) and not loaded.notes
    in_order = load(folder, dataclasses.replace(task, class_names=("pos", "neg", "neutral")))
    torch.testing.assert_close(in_order.module(**batch).logits, saved(**batch).logits, rtol=1e-5, atol=1e-6)
    assert in_order.content_hash != loaded.content_hash


def test_equal_weights_with_other_names_are_another_model(save):
    _, folder = save(["pos", "neg", "neutral"])
    first = load(folder, REVIEWS).content_hash
    config = json.loads((folder / "config.json").read_text())
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    (folder / "config.json").write_text(json.dumps({**config, **names}))
    assert load(folder, REVIEWS).content_hash != first


def test_other_classes_are_refused_with_both_lists_unless_matched_by_number(save):
    saved, folder = save(["bad", "so so", "good"])
    problem = refusal(folder, REVIEWS)
    assert problem.field == "model.source" and "match_classes" in problem.remedy
    assert "bad, so so, good" in problem.message and "neg, neutral, pos" in problem.message
    loaded = load(folder, REVIEWS, match_classes="number")
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(**TEXTS).logits, saved(**TEXTS).logits, rtol=1e-5, atol=1e-6)
    assert "so so = neutral" in loaded.notes[0]
    assert load(folder, REVIEWS, new_head=True).config["config"]["id2label"] == dict(zip("012", NAMES, strict=True))


@pytest.mark.parametrize(
    ("names", "problem_type", "words"),
    [
        (NAMES, "multi_label_classification", "multi-label head"),
        (NAMES, "regression", "regression head"),
        (["score"], None, "regression head"),
        (["a", "b"], None, "2 classes"),
    ],
)
def test_a_head_that_does_not_choose_one_class_is_refused(names, problem_type, words, save):
    _, folder = save(list(names), problem_type=problem_type)
    problem = refusal(folder, REVIEWS)
    assert words in problem.message and "new_head" in problem.remedy
    assert load(folder, REVIEWS, new_head=True).module.config.problem_type is None


def test_a_token_without_a_row_in_the_embedding_is_refused(save):
    _, folder = save(list(NAMES))
    longer = tokenizer()
    longer.add_tokens([f"<x{n}>" for n in range(50)])
    longer.save_pretrained(folder)
    problem = refusal(folder, REVIEWS)
    first = longer.convert_ids_to_tokens(64)  # the embedding has rows 0 to 63
    assert all(words in problem.message for words in (f"{len(longer)} tokens", "64 rows", repr(first)))
