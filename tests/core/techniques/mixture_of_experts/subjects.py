"""Small models to put experts into."""

import torch

from core.models.gpt import Gpt
from core.nn.experts.mixture import MixtureOfExperts
from core.subject import Subject
from core.techniques.mixture_of_experts.glam import Glam
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.mixture_of_experts.switch import Switch
from tests.core.fakes import PlaneTask, context

BLOCKS = {"dim": 16, "heads": 2, "kv_heads": 2, "attention": "full", "attention_settings": {}}


def gpt(ffn="mlp", depth=4, trained=False, **more):
    settings = {"vocab_size": 40, "length": 32, "positions": "learned", "tied": True, "ffn_dim": 48}
    model = Gpt(**settings, **BLOCKS, ffn=ffn, depth=depth, **more)
    model.initialize_(torch.Generator().manual_seed(0))
    model.double().eval()
    if trained:
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)  # biases too
    return Subject({"main": model}, PlaneTask(), {"main": {}}, trained=trained)


def tokens(length=24, batch=2):
    return torch.randint(0, 40, (batch, length), generator=torch.Generator().manual_seed(1))


STEPS = {"moe": Moe, "switch": Switch, "glam": Glam}


def applied(name, subject=None, **settings):
    subject = subject or gpt()
    step = STEPS[name](**({"experts": 4} | settings))
    step.check(subject)
    step.apply(subject, context(subject))
    return subject


def mixtures(subject):
    return {name: m for name, m in subject.model.named_modules() if isinstance(m, MixtureOfExperts)}
