"""Channels of the residual stream: a narrower network is the whole one without them, in norms too."""

import copy

import pytest
import torch
import transformers
from torch import nn

from core.algorithms.structured.masked_norms import norm_over
from core.algorithms.structured.stream import norms_of, stream_units
from core.algorithms.structured.units import keep_
from core.errors import SpecError
from core.measure.compute import count, count_weights
from core.models.anatomy import anatomy
from core.models.meta import tied_parameters
from tests.core.algorithms.structured.families import TRANSFORMERS, answers, subject_of

N_NORMS = {"vit": 5, "gpt": 5, "hf llama": 5, "hf opt": 5, "hf bert": 5, "hf vit": 5}


class Blind(nn.Module):
    """A norm of only some channels, written anew: the others are neither seen nor passed on."""

    def __init__(self, norm, kept):
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x):
        narrow = x[..., self.kept].double()
        if isinstance(self.norm, nn.LayerNorm):
            narrow = (narrow - narrow.mean(-1, keepdim=True)) / (
                narrow.var(-1, correction=0, keepdim=True) + 1e-5
            ) ** 0.5
            narrow = narrow * self.norm.weight[self.kept] + self.norm.bias[self.kept]
        else:
            narrow = narrow / (narrow.square().mean(-1, keepdim=True) + 1e-6) ** 0.5 * self.norm.weight[self.kept]
        wide = torch.zeros_like(x)
        wide[..., self.kept] = narrow.to(x.dtype)
        return wide


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_a_narrower_network_is_the_whole_one_without_those_channels(family):
    subject = subject_of(family)
    whole = copy.deepcopy(subject)
    kept = torch.randperm(32, generator=torch.Generator().manual_seed(1))[:12].sort().values
    gone = torch.tensor([i for i in range(32) if i not in kept])
    names = norms_of(subject.model)
    assert len(names) == N_NORMS[family]
    for part in stream_units(whole.model).slices:
        if part.dim == 0 or "embed" in part.parameter or "token" in part.parameter:  # what writes
            with torch.no_grad():
                whole.model.get_parameter(part.parameter).index_fill_(part.dim, gone, 0)
    for name in names:
        norm = whole.model.get_submodule(name)
        norm.eps = 1e-5
        whole.model.set_submodule(name, Blind(norm, kept))
        other = subject.model.get_submodule(name)
        if isinstance(other, nn.LayerNorm):
            other.eps = 1e-5
        x = torch.randn(2, 3, 32)
        torch.testing.assert_close(norm_over(other, x, kept), Blind(norm, kept)(x), atol=1e-5, rtol=1e-4)
    keep_(subject, stream_units(subject.model), kept)
    expected = answers(whole)
    assert float((answers(subject) - expected).abs().max()) < 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_everything_gets_narrower(family):
    subject = subject_of(family)
    batch = subject.task.batch(torch.arange(1))
    before, shared = count(subject.model, batch), tied_parameters(subject.model)
    keep_(subject, stream_units(subject.model), torch.arange(16))
    after = count(subject.model, batch)
    assert after.macs < 0.65 * before.macs and 0.45 < after.parameters / before.parameters < 0.65
    assert tied_parameters(subject.model) == shared
    assert stream_units(subject.model).count == 16
    assert count_weights(subject.model).parameters == after.parameters


def test_streams_with_more_on_their_way_are_refused():
    subject = subject_of("vit")
    config = transformers.Gemma2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
        intermediate_size=48, head_dim=8,
    )  # fmt: skip
    with torch.device("meta"):
        subject.models["main"] = transformers.Gemma2ForCausalLM(config)
    assert anatomy(subject.model).blocks
    with pytest.raises(SpecError, match="not plain pre-norm blocks"):
        stream_units(subject.model)
