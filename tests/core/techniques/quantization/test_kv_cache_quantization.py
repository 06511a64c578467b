"""KV-cache quantization: what scoring sees is what generation sees, in every family that generates."""

import pytest
import torch
import transformers

from core.artifacts import artifact
from core.complexity.costs import state_bytes
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.nn.attention.huggingface_quantized_kv import HuggingFaceQuantizedKv
from core.nn.quant_linear import QuantLinear
from core.runtimes.base import kernel_of
from core.runtimes.decode import decoder_of
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.architecture.reversible import Reversible
from core.techniques.attention.sliding_window import SlidingWindow
from core.techniques.quantization.kv_cache_quantization import KvCacheQuantization
from core.techniques.quantization.rotation import Rotation
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import PlaneTask, context, plane_subject
from tests.core.nn.test_huggingface_sliding_window import LLAMA, tiny
from tests.core.techniques.architecture.small_gpt import subject_of as builtin
from tests.core.techniques.pruning.families import loaded, subject_of
from tests.core.techniques.test_decoders import LENGTH, assert_decodes, disturbed

HUGGING_FACE = ("llama", "mistral", "qwen2", "opt", "gpt2", "mixtral", "qwen3")
SMALL = {"group_size": 8, "window": 4}


def made(family: str) -> Subject:
    if family == "qwen3":
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen3Config(head_dim=8, **LLAMA))
        return Subject({"main": model.eval()}, PlaneTask(), {"main": {}})
    if family == "builtin":
        return builtin(length=LENGTH, kv_heads=2, positions="rotary")[0]
    return Subject({"main": tiny(family)}, PlaneTask(), {"main": {}})


def quantized(family: str, **settings) -> torch.nn.Module:
    subject = made(family)
    disturbed(subject.model)
    step = KvCacheQuantization(**{**SMALL, **settings})
    step.check(subject)
    step.apply(subject, context(subject))
    return subject.model.eval()


def answers(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return logits_of(model, {"input_ids": torch.arange(2 * LENGTH).view(2, -1) * 7 % 60 + 3})


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("family", ["builtin", *HUGGING_FACE])
def test_decoding_gives_the_scored_logits(family, rotate):
    assert_decodes(quantized(family, rotate=rotate), 64)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("family", ["builtin", *HUGGING_FACE])
def test_fewer_bits_lose_more_and_a_window_over_all_tokens_nothing(family, rotate):
    dense = answers(disturbed(made(family).model))
    errors = [
        float((answers(quantized(family, rotate=rotate, **settings)) - dense).norm() / dense.norm())
        for settings in ({"window": 100}, {"bits": 8}, {"bits": 4}, {"bits": 2})
    ]
    assert errors[0] < 1e-5
    assert errors[0] * 10 < errors[1] < errors[2] / 4
    assert errors[2] < errors[3]


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "builtin gpt"])
@pytest.mark.parametrize("rotate", [False, True])
def test_the_artifact_reloads_to_the_same(family, rotate, tmp_path):
    subject = subject_of(family, depth=2)
    Rotation().apply(subject, context(subject))
    KvCacheQuantization(group_size=8, window=1, rotate=rotate).apply(subject, context(subject))
    Rtn(bits=8).apply(subject, context(subject))
    assert sum(isinstance(module, QuantLinear) for module in subject.model.modules()) >= 8
    batch = {"input_ids": subject.task.batch(torch.arange(2))["input_ids"]}
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        assert torch.equal(logits_of(again, batch), logits_of(subject.model, batch))
    assert kernel_of(again, torch.device("cpu"), torch.float32) is None


@pytest.mark.parametrize("family", ["llama", "builtin gpt"])
def test_the_report_has_the_bytes_that_the_cache_takes(family):
    subject = subject_of(family, depth=2)
    KvCacheQuantization(bits=2, group_size=8, window=0).apply(subject, context(subject))
    decoder = decoder_of(subject.model)
    with torch.no_grad():
        decoder.prefill({"input_ids": torch.arange(8)[None] + 4}, 4)
    rows = subject.details["layers"]
    assert state_bytes(decoder.cache) == 8 * sum(row["bytes per token"] for row in rows)
    assert {row["bytes per token before"] for row in rows} == {2 * 2 * 8 * 4}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_transformers_generates_with_it(family):
    model = quantized(family, window=2)
    prompt = torch.arange(11)[None] + 5
    greedy = model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    tokens = prompt
    with torch.no_grad():
        for _ in range(8):
            tokens = torch.cat((tokens, model(tokens).logits[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(greedy, tokens)
    beams = model.generate(prompt, max_new_tokens=8, num_beams=3, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert beams.shape == greedy.shape


def test_layers_with_a_window_of_their_own_keep_their_cache():
    subject, record = subject_of("qwen2", depth=2), MemoryRecord()
    KvCacheQuantization(group_size=8, window=0).apply(subject, context(subject, record))
    swapped = [isinstance(layer.self_attn, HuggingFaceQuantizedKv) for layer in subject.model.model.layers]
    assert swapped == [True, False]
    assert any("sees a window of 4 tokens only" in message for _, message in record.events)
    assert_decodes(subject.model, 64)


def test_reversible_blocks_keep_their_keys_packed():
    subject = builtin(length=LENGTH)[0]
    Reversible().apply(subject, context(subject))
    KvCacheQuantization(**SMALL).apply(subject, context(subject))
    assert_decodes(disturbed(subject.model), 64)


def test_what_has_no_effect_is_warned_of():
    subject, record = subject_of("llama", depth=1), MemoryRecord()
    KvCacheQuantization().apply(subject, context(subject, record))
    assert record.events == [
        ("warning", "the task's 12 tokens never leave the window of 64 tokens: no effect on scores")
    ]


@pytest.mark.parametrize("family", ["builtin vit", "builtin encoder", "bert", "vit"])
def test_models_that_do_not_generate_are_refused(family):
    with pytest.raises(SpecError, match="has no cache that can be quantized"):
        KvCacheQuantization().check(subject_of(family, depth=1))


def test_other_models_and_caches_are_refused():
    with pytest.raises(SpecError, match="it does not generate text"):
        KvCacheQuantization().check(plane_subject())
    subject = subject_of("llama", depth=1)
    SlidingWindow(window=4).apply(subject, context(subject))
    with pytest.raises(SpecError, match="has no cache that can be quantized"):
        KvCacheQuantization().check(subject)
    again = subject_of("llama", depth=1)
    KvCacheQuantization().apply(again, context(again))
    with pytest.raises(SpecError, match="has no cache that can be quantized"):
        KvCacheQuantization().check(again)
