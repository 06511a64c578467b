"""Sliding window as a technique: the same weights under a band, refused where nothing can be swapped."""

import pytest
import torch
import transformers
from torch import nn

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.models.resnet import Resnet
from core.nn.attention.full import FullAttention
from core.nn.attention.huggingface_sliding_window import HuggingFaceSlidingWindow
from core.nn.attention.sliding_window import SlidingWindowAttention
from core.techniques.attention.sliding_window import SlidingWindow
from core.techniques.pruning.nm_pruning import NmPruning
from tests.core.fakes import context, plane_subject


class OneAttention(nn.Module):
    """An attention over given tokens."""

    def __init__(self, causal: bool):
        super().__init__()
        self.attention = FullAttention(8, 2, causal=causal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x)


def subject_of(causal: bool):
    subject = plane_subject()
    torch.manual_seed(0)
    subject.models["main"] = OneAttention(causal)
    return subject


@pytest.mark.parametrize("causal", [True, False])
def test_the_same_weights_attend_within_the_window(causal):
    subject = subject_of(causal)
    full = subject.model.attention
    x = torch.randn(2, 9, 8)
    SlidingWindow(window=3).apply(subject, context(subject))
    swapped = subject.model.attention
    assert type(swapped) is SlidingWindowAttention
    assert swapped.q.weight is full.q.weight
    assert swapped.o.bias is full.o.bias
    q, k, v = (part(x).unflatten(2, (2, 4)).transpose(1, 2) for part in (full.q, full.k, full.v))
    place = torch.arange(9)
    distance = place[:, None] - place[None, :]
    band = (distance >= 0) & (distance < 3) if causal else distance.abs() < 3
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(~band, float("-inf"))
    expected = full.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(subject.model(x), expected, atol=1e-6, rtol=1e-5)
    assert subject.details["layers"] == [{"name": "attention", "window": 3}]


def test_a_window_over_everything_changes_nothing_and_says_so():
    subject, record = subject_of(True), MemoryRecord()
    subject.task.length = 9
    x = torch.randn(2, 9, 8)
    before = subject.model(x)
    SlidingWindow(window=9).apply(subject, context(subject, record))
    torch.testing.assert_close(subject.model(x), before)
    assert record.events == [("warning", "window 9 covers the task's 9 tokens: no effect")]


def test_masks_survive_the_swap():
    subject = subject_of(False)
    NmPruning().apply(subject, context(subject))
    masks = {name: c.tensor for name, c in subject.constraints.items()}
    SlidingWindow(window=3).apply(subject, context(subject))
    assert len(masks) == 4
    assert {name: c.tensor for name, c in subject.constraints.items()} == masks


def test_models_without_full_attention_are_refused():
    subject = plane_subject()
    subject.models["main"] = Resnet(depth=8, width=4, image_size=(8, 8), channels=1, n_classes=10)
    with pytest.raises(SpecError, match="model = 'Resnet': has no attention that can be replaced"):
        SlidingWindow().check(subject)


def test_label_is_the_window():
    assert SlidingWindow(window=128).label() == "128 tokens"


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 64}


def test_decoders_of_hugging_face_are_swapped_and_still_known():
    subject = plane_subject()
    subject.models["main"] = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
    before = anatomy(subject.model)
    q = subject.model.model.layers[1].self_attn.q_proj
    SlidingWindow(window=3).apply(subject, context(subject))
    swapped = subject.model.model.layers[1].self_attn
    assert type(swapped) is HuggingFaceSlidingWindow and swapped.q_proj is q and swapped.window == 3
    assert anatomy(subject.model) == before


def test_other_attention_is_refused_with_the_reason():
    subject = plane_subject()
    subject.models["main"] = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
    with pytest.raises(SpecError, match="BertAttention is not among LlamaAttention"):
        SlidingWindow().check(subject)
