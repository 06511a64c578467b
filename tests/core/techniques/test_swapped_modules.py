"""What every step owes that swaps modules in: gradients that can be taken twice, and a declared limit of length."""

import pytest
import torch

from core.families import Family
from core.models.encoder import Encoder
from core.models.gpt import Gpt
from core.subject import Subject
from core.technique import OneShot
from core.techniques.catalogue import TECHNIQUES
from tests.core.fakes import PlaneTask
from tests.core.techniques.attention.subjects import BLOCKS, CONFIGS, FULL, inputs_of
from tests.core.techniques.steps import SMALL, apply_or_skip

FAMILIES = (Family.ATTENTION, Family.ARCHITECTURE, Family.MIXTURE_OF_EXPERTS)
STEPS = [name for name, cls in TECHNIQUES.items() if cls.family in FAMILIES and issubclass(cls, OneShot)]
SETTINGS = SMALL | {
    "bigbird": {"block": 4, "random_blocks": 2},
    "block_local": {"block": 8},
    "etc": {"radius": 5, "global_tokens": 3, "max_distance": 2},
}
MODELS = {"encoder": Encoder, "gpt": Gpt}


def applied(name: str, kind: str) -> Subject:
    """A model of at most 64 tokens with rotary positions, which know no longest text, after a step."""
    model = MODELS[kind](**{**BLOCKS, **FULL, **CONFIGS[kind], "positions": "rotary"})
    model.initialize_(torch.Generator().manual_seed(0))
    subject = Subject({"main": model.eval()}, PlaneTask(), {"main": {}})
    return apply_or_skip({name: SETTINGS.get(name, {})}, subject)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", STEPS)
def test_a_second_backward_pass_gives_the_same_gradients(name, kind):
    model = applied(name, kind).model.train()
    loss = model(**inputs_of(kind)).square().mean()
    parameters = [p for p in model.parameters() if p.requires_grad]
    options = {"allow_unused": True, "materialize_grads": True}
    first = [g.clone() for g in torch.autograd.grad(loss, parameters, retain_graph=True, **options)]
    assert any(gradient.any() for gradient in first)
    for found, right in zip(torch.autograd.grad(loss, parameters, **options), first, strict=True):
        torch.testing.assert_close(found, right)


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", STEPS)
def test_a_longer_text_is_taken_or_refused_as_declared(name, kind):
    model = applied(name, kind).model
    model(input_ids=torch.ones(1, 64, dtype=torch.long))
    longer = {"input_ids": torch.ones(1, 66, dtype=torch.long)}
    if not TECHNIQUES[name].limits_length:
        model(**longer)
        return
    with pytest.raises(ValueError, match=r"6[45] tokens, not 6[67]"):
        model(**longer)
