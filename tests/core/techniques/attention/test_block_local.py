"""Block-local attention as a step: which layers, what is refused, and generation from one block's keys."""

import pytest
import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.nn.attention.block_local import BlockLocalAttention
from core.nn.attention.full import FullAttention
from core.techniques.attention.block_local import BlockLocal
from tests.core.fakes import context
from tests.core.techniques.attention.subjects import inputs_of, subject_of


def test_one_layer_in_so_many_is_swapped():
    subject = subject_of("gpt")
    BlockLocal(block=8, every=2).apply(subject, context(subject))
    kinds = [type(block.attention) for block in subject.model.blocks]
    assert kinds == [BlockLocalAttention, FullAttention]
    assert subject.details["layers"] == [{"name": "blocks.0.attention", "block": 8}]


def test_nothing_passes_between_blocks():
    subject = subject_of("gpt")
    BlockLocal(block=8).apply(subject, context(subject))
    tokens = inputs_of("gpt")["input_ids"]
    other = tokens.clone()
    other[:, 8:16] += 1
    changed = (subject.model(tokens) - subject.model(other % 50)).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.nonzero().flatten().tolist() == list(range(8, 16))


def test_a_model_that_reads_its_class_token_is_refused():
    with pytest.raises(SpecError, match="limit the class token"):
        BlockLocal(block=8).check(subject_of("vit"))
    BlockLocal(block=8, every=2).check(subject_of("vit"))
    BlockLocal(block=8).check(subject_of("mean"))


def test_generation_with_its_cache_is_recomputation():
    subject = subject_of("gpt")
    BlockLocal(block=8, every=2).apply(subject, context(subject))
    model, prompt = subject.model, inputs_of("gpt")["input_ids"][:, :13]
    made = model.generate(prompt, 30, temperature=0)
    tokens = prompt
    for _ in range(30):
        tokens = torch.cat((tokens, model(tokens)[:, -1:].argmax(dim=-1)), dim=1)
    assert torch.equal(made, tokens)


def test_a_model_rebuilt_from_its_artifacts_form_gives_the_same():
    subject = subject_of("mean")
    BlockLocal(block=8).apply(subject, context(subject))
    again = artifact._bare(subject.configs["main"], artifact.list_replacements(subject.model))
    again.load_state_dict(subject.model.state_dict(), strict=True, assign=True)
    assert torch.equal(again.eval()(**inputs_of("mean")), subject.model(**inputs_of("mean")))


def test_a_block_over_everything_changes_nothing_and_says_so():
    subject, record = subject_of("gpt"), MemoryRecord()
    subject.task.length = 64
    before = subject.model(**inputs_of("gpt"))
    BlockLocal(block=64).apply(subject, context(subject, record))
    torch.testing.assert_close(subject.model(**inputs_of("gpt")), before)
    assert record.events == [("warning", "a block of 64 covers the task's 64 tokens: no effect")]


def test_label_is_the_block_and_the_layers_that_stay():
    assert BlockLocal(block=128).label() == "blocks of 128"
    assert BlockLocal(block=128, every=3).label() == "blocks of 128, one layer in 3"
