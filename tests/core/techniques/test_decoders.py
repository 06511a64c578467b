"""What every decoder owes: no token sees later ones, decoding is the full forward pass, and a token's cost is bounded.

Decoders are the built-in ones, small ones of transformers, and what each step of the catalogue makes of them.
"""

import pytest
import torch
from torch import nn

from core.measure import compute
from core.subject import Subject
from core.technique import OneShot
from core.techniques.catalogue import TECHNIQUES
from tests.core.fakes import PlaneTask
from tests.core.nn.test_huggingface_sliding_window import FAMILIES, tiny
from tests.core.techniques.architecture.small_gpt import subject_of
from tests.core.techniques.steps import SMALL, apply_or_skip

LENGTH, FIRST = 32, 13  # tokens, and those whose answers must not depend on the others
PIECES = [9, 1, 1, 5, 1, 15]  # in which the text is decoded
STEPS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, OneShot) and name != "train"]
VARIANTS = [
    *({name: SMALL.get(name, {})} for name in STEPS),
    {"block_local": {"block": 5, "every": 2}},
    {"glam": {"experts": 8, "every": 1, "eval_capacity_factor": 0.1, "group": "sequence"}},
    {"switch": {"experts": 8, "every": 1, "eval_capacity_factor": 0.1}},
    {"switch": {"experts": 8, "every": 1, "eval_capacity_factor": 0.1, "reroutes": 4}},
    {"mamba": {"replaces": "attention"}},
    {"retnet": {"value_factor": 2}},
    *({"rwkv": {"version": version}} for version in (4, 5)),
    {"sliding_window": {"window": 1}},
]
MODELS = {"plain": {}, "rotary": {"positions": "rotary"}, "shared keys": {"kv_heads": 2}}


@torch.no_grad()
def disturbed(model: nn.Module) -> nn.Module:
    """With noise on every weight: zeros and near-uniform attention, as fresh layers have them, would hide mistakes."""
    torch.manual_seed(7)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel():
            scale = float(parameter.float().std(correction=0)) or 0.1
            parameter.add_(scale * torch.randn(parameter.shape).to(parameter))
    return model.eval()


def answers(model: nn.Module, ids: torch.Tensor, cache=None):
    """Logits in float32, and the cache that goes on from these tokens."""
    if hasattr(model, "make_cache"):
        return model(ids, cache=cache).float(), cache
    output = model(ids, past_key_values=cache, use_cache=True)
    return output.logits.float(), output.past_key_values


@torch.no_grad()
def assert_decodes(model: nn.Module, n_tokens: int) -> None:
    ids = torch.randint(3, n_tokens, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    expected, _ = answers(model, ids)
    close = {"rtol": 1e-3, "atol": 1e-4 * float(expected.abs().max())}
    if next(model.parameters()).dtype != torch.float32:
        close = {"rtol": 0.1, "atol": 0.05 * float(expected.abs().max())}
    others = torch.cat((ids[:, :FIRST], (ids[:, FIRST:] + 17) % (n_tokens - 3) + 3), dim=1)
    changed, _ = answers(model, others)
    torch.testing.assert_close(changed[:, :FIRST], expected[:, :FIRST], **close)
    assert not torch.allclose(changed[:, FIRST:], expected[:, FIRST:], **close)
    shorter, _ = answers(model, ids[:, :FIRST])
    torch.testing.assert_close(shorter, expected[:, :FIRST], **close)
    cache, parts = model.make_cache(LENGTH) if hasattr(model, "make_cache") else None, []
    for piece in ids.split(PIECES, dim=1):
        logits, cache = answers(model, piece, cache)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, **close)


@pytest.mark.parametrize("step", VARIANTS, ids=str)
def test_what_a_step_makes_of_the_built_in_decoder(step):
    subject = apply_or_skip(step, subject_of(length=LENGTH)[0])
    assert_decodes(disturbed(subject.model), 256)
    alone, last = macs_of_first_and_last_token(subject.model)
    assert last <= alone + (LENGTH - 1) * 2 * A_KEY  # gmlp's and retnet's are wider; no step computes old tokens anew


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_the_built_in_decoder(settings):
    assert_decodes(disturbed(subject_of(length=LENGTH, **settings)[0].model), 256)


@pytest.mark.parametrize("window", [None, 1, 6])
@pytest.mark.parametrize("family", [*FAMILIES, "mixtral"])
def test_decoders_of_transformers(family, window):
    subject = Subject({"main": tiny(family)}, PlaneTask(), {"main": {}})
    if window is not None:
        apply_or_skip({"sliding_window": {"window": window}}, subject)
    assert_decodes(disturbed(subject.model), 64)


A_KEY = 2 * 32 * 2  # queries times keys, and weights times values, of width 32, in 2 layers


def macs_of_first_and_last_token(model: nn.Module) -> tuple[int, int]:
    """What a text of one token costs, and the last of `LENGTH` tokens in decoding."""
    text = {"input_ids": torch.arange(LENGTH)[None] % 60 + 3}
    decoded = compute.count(model, text, decode=True).decode_macs
    return compute.count_macs(model, {"input_ids": text["input_ids"][:, :1]}), decoded


SOURCES = {"builtin": lambda: subject_of(length=LENGTH)[0].model, **{f: lambda f=f: tiny(f) for f in FAMILIES}}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("window", [1, 6, 20])
def test_a_decoded_token_is_compared_with_as_many_keys_as_its_window_has(window, source):
    subject = Subject({"main": SOURCES[source]()}, PlaneTask(), {"main": {}})
    alone, last = macs_of_first_and_last_token(apply_or_skip({"sliding_window": {"window": window}}, subject).model)
    assert last == alone + (window - 1) * A_KEY


def test_a_decoded_token_is_compared_with_the_keys_of_its_block():
    subject = apply_or_skip({"block_local": {"block": 7}}, subject_of(length=LENGTH)[0])
    alone, last = macs_of_first_and_last_token(subject.model)
    assert last == alone + (LENGTH - 1) % 7 * A_KEY
