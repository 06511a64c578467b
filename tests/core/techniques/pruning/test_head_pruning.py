"""Head pruning: absolute values inside the mean, planted heads first, rounds, and what every later step then sees."""

import copy

import pytest
import torch

from core import models, tasks
from core.algorithms.structured.units import places
from core.artifacts import artifact
from core.errors import SpecError
from core.measure.compute import count
from core.models.anatomy import anatomy, heads_of
from core.runtimes.decode import decoder_of
from core.runtimes.onnxruntime import exported
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.techniques.attention.sliding_window import SlidingWindow
from core.techniques.pruning.head_pruning import HeadPruning, head_importance, normalized
from tests.core.algorithms.structured.families import TRANSFORMERS, answers, subject_of, switch_off_
from tests.core.fakes import context


def heads(subject):
    known = anatomy(subject.model)
    return [heads_of(subject.model, known, block) for block in known.blocks]


def test_the_absolute_value_is_taken_of_every_example():
    gradients = torch.tensor([[1.0, 0.1], [-1.0, 0.2], [1.0, 0.3], [-1.0, 0.4]])
    assert head_importance(gradients).tolist() == pytest.approx([1.0, 0.25])  # signs do not cancel


def test_scores_are_divided_by_their_layers_norm():
    scores = normalized({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0, 0.0])})
    assert scores["a"].tolist() == pytest.approx([0.6, 0.8]) and scores["b"].tolist() == [0, 0]


def plant(subject, idle):
    """Zero the output projection of these heads (groups, where queries share keys), by block: as if they were not."""
    known = anatomy(subject.model)
    for index, group in idle:
        block = known.blocks[index]
        own, shared = heads_of(subject.model, known, block)
        switch_off_(subject, block.o, places(torch.tensor([group]), own // shared * known.head_dim))


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("importance", ["gradient", "magnitude"])
def test_heads_without_output_go_first_and_nothing_changes(family, importance):
    subject = subject_of(family)
    grouped = family in ("gpt", "hf llama")
    idle = [(0, 1), (1, 0)] if grouped else [(0, 3), (0, 1), (1, 0)]
    plant(subject, idle)
    if importance == "magnitude":  # of all of a head's weights: make those of q, k and v small too
        known = anatomy(subject.model)
        for index, group in idle:
            for name in (known.blocks[index].q, known.blocks[index].k, known.blocks[index].v):
                weight = subject.model.get_parameter(f"{name}.weight").data
                width = len(weight) // (2 if grouped else 4)
                weight[places(torch.tensor([group]), width)] *= 0.01
    expected = answers(subject)
    ratio = len(idle) / (4 if grouped else 8)
    HeadPruning(pruning_ratio=ratio, importance=importance, rounds=2).apply(subject, context(subject))
    assert heads(subject) == ([(2, 1), (2, 1)] if grouped else [(2, 2), (3, 3)])
    torch.testing.assert_close(answers(subject), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
    rows = subject.details["layers"]
    assert [(row["heads before"], row["heads after"]) for row in rows] == [(4, h) for h, _ in heads(subject)]
    if importance == "gradient":
        assert all(row["importance kept (%)"] == pytest.approx(100) for row in rows)


def test_importances_are_estimated_again_in_every_round(monkeypatch):
    subject, asked = subject_of("vit"), []
    method = HeadPruning(pruning_ratio=0.5, rounds=4)
    scores = HeadPruning._scores

    def noted(self, subject, context, units):
        asked.append(sum(group.count for group in units))
        return scores(self, subject, context, units)

    monkeypatch.setattr(HeadPruning, "_scores", noted)
    method.apply(subject, context(subject))
    assert asked == [8, 7, 6, 5]
    assert sum(h for h, _ in heads(subject)) == 4


def test_one_head_of_every_layer_stays():
    subject = subject_of("vit")
    plant(subject, [(0, head) for head in range(4)])
    HeadPruning(pruning_ratio=0.5, rounds=1).apply(subject, context(subject))
    assert heads(subject) == [(1, 1), (3, 3)]


def test_without_the_norm_a_layer_that_matters_less_gives_more():
    for normalize, expected in ((True, [(3, 3), (3, 3)]), (False, [(4, 4), (2, 2)])):
        subject = subject_of("vit")
        with torch.no_grad():
            subject.model.blocks[0].attention.o.weight[:, :8] *= 0.1
            subject.model.blocks[1].attention.o.weight *= 0.01
            subject.model.blocks[1].attention.o.weight[:, :8] *= 0.1
        HeadPruning(pruning_ratio=0.25, rounds=1, normalize=normalize).apply(subject, context(subject))
        assert heads(subject) == expected


@pytest.mark.parametrize("importance", ["magnitude", "random"])
def test_rivals_cut_as_many(importance):
    subject = subject_of("vit")
    HeadPruning(pruning_ratio=0.25, importance=importance).apply(subject, context(subject))
    assert sum(h for h, _ in heads(subject)) == 6


def test_ratios_that_take_nothing_or_too_much_are_refused():
    subject = subject_of("gpt")
    with pytest.raises(SpecError, match=r"pruning_ratio = 0.1: removes none of 4 heads. Choose more than 0.12"):
        HeadPruning(pruning_ratio=0.1).check(subject)
    with pytest.raises(SpecError, match=r"leaves 1 of 4 heads for 2 layers, which need one each. Choose at most 0.5"):
        HeadPruning(pruning_ratio=0.75).check(subject)
    subject = subject_of("gpt")
    HeadPruning(pruning_ratio=0.5).apply(subject, context(subject))
    with pytest.raises(
        SpecError, match=r"leaves 1 of 2 heads for 2 layers.*Choose a model with several heads per layer"
    ):
        HeadPruning(pruning_ratio=0.5).check(subject)
    with pytest.raises(SpecError, match=r"heads are not known|blocks are not known"):
        HeadPruning().check(subject_of("resnet"))


def pruned(family):
    """A model that has one head less in its first block than in its second."""
    subject = subject_of(family)
    plant(subject, [(0, 0)])
    HeadPruning(pruning_ratio=0.25 if family in ("gpt", "hf llama") else 0.125).apply(subject, context(subject))
    assert heads(subject)[0] != heads(subject)[1]
    return subject


DECODERS = ["gpt", "hf llama", "hf opt"]


@pytest.mark.parametrize("family", DECODERS)
@pytest.mark.parametrize("window", [None, 4])
def test_decoding_with_kept_keys_and_values_is_the_forward_pass(family, window):
    subject = pruned(family)
    if window is not None:
        SlidingWindow(window=window).apply(subject, context(subject))
    decoder = decoder_of(subject.model)
    prompt = subject.task.batch(torch.arange(3))["input_ids"][:, :7]
    with torch.inference_mode():
        decoder.prefill({"input_ids": prompt}, 3)
        for _ in range(3):
            before = decoder.token
            output = subject.model(prompt)
            logits = output if isinstance(output, torch.Tensor) else output.logits
            assert torch.equal(logits[:, -1:].argmax(-1), before)
            prompt = torch.cat((prompt, before), dim=1)
            decoder.step()


@pytest.mark.parametrize("family", DECODERS)
def test_a_window_over_everything_leaves_pruned_attention_as_it_is(family):
    subject = pruned(family)
    expected = answers(subject)
    before, batch = count(subject.model, subject.task.batch(torch.arange(1))), subject.task.batch(torch.arange(1))
    SlidingWindow(window=16).apply(subject, context(subject))
    torch.testing.assert_close(answers(subject), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)
    assert count(subject.model, batch).parameters == before.parameters
    assert [a.heads for a in subject.model.modules() if hasattr(a, "make_cache") and hasattr(a, "kv_heads")] in (
        [],
        [h for h, _ in heads(subject)],
    )


def test_heads_of_a_window_can_be_pruned_too():
    for family in ("vit", "hf llama"):
        subject = subject_of("gpt" if family == "vit" else family)
        plant(subject, [(0, 0)])
        SlidingWindow(window=16).apply(subject, context(subject))
        expected = answers(subject)
        HeadPruning(pruning_ratio=0.25).apply(subject, context(subject))
        assert heads(subject) == [(2, 1), (4, 2)]
        torch.testing.assert_close(answers(subject), expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("family", ["vit", "hf opt", "hf bert", "hf vit"])  # of grouped queries no graph is made
def test_pruned_models_are_exported(family):
    pytest.importorskip("onnxruntime")
    subject = pruned(family)
    runner = exported(subject.model, torch.device("cpu"), torch.float32, subject.task.batch(torch.arange(2)))
    batch = subject.task.batch(torch.arange(2))
    expected = answers(subject)[:2]
    torch.testing.assert_close(runner(batch), expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_macs_are_those_of_the_heads_that_are_left(family):
    subject, whole = pruned(family), subject_of(family)
    batch = subject.task.batch(torch.arange(1))
    known, length = anatomy(whole.model), answers(subject)[:1].flatten(0, -2).shape[0]
    if family in ("vit", "hf vit"):
        length = 1 + (4 if family == "vit" else 16)
    elif family == "hf bert":
        length = 10
    saved = 0
    for block in anatomy(subject.model).blocks:
        h, kv = heads_of(whole.model, known, block)
        own, shared = heads_of(subject.model, known, block)
        rows = 2 * (h - own) + 2 * (kv - shared)
        saved += length * rows * 8 * 32 + 2 * (h - own) * length * length * 8
    assert count(whole.model, batch).macs - count(subject.model, batch).macs == saved


@pytest.mark.parametrize("window", [None, 8])
def test_an_artifact_of_pruned_heads_reloads(tmp_path, window):
    task = tasks.load(TaskSpec(source="builtin:python-docs", length=16))
    options = {"source": "builtin:gpt", "dim": 32, "depth": 2, "heads": 4, "kv_heads": 2, "positions": "rotary"}
    loaded = models.load(ModelSpec.model_validate(options), task, torch.Generator().manual_seed(0))
    task.prepare(loaded.input_format)
    subject = Subject({"main": loaded.module}, task, {"main": loaded.config})
    HeadPruning(pruning_ratio=0.25, calibration_examples=4).apply(subject, context(subject))
    if window is not None:
        SlidingWindow(window=window).apply(subject, context(subject))
    artifact.save(subject, tmp_path, loaded)
    again = artifact.load_subject(tmp_path, task, torch.device("cpu"))
    assert heads(again) == heads(subject) and sum(kv for _, kv in heads(again)) == 3
    tokens = task.split("test").batch(torch.arange(2))["input_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(again.model(tokens), subject.model(tokens))


def test_a_pruned_model_trains_on():
    subject = pruned("hf opt")
    batch = subject.task.batch(torch.arange(4))
    loss = subject.task.loss(subject.model.train()(input_ids=batch["input_ids"]).logits, batch)
    loss.backward()
    gradient = subject.model.model.decoder.layers[0].self_attn.q_proj.weight.grad
    assert gradient.shape == (24, 32) and float(gradient.abs().sum()) > 0
    assert copy.deepcopy(subject.model).model.decoder.layers[0].self_attn.num_heads == 3
