"""Small models of a fixed number of tokens, and what every step owes that maps tokens to tokens."""

from pathlib import Path

import torch
from torch.nn import functional as F

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.models.encoder import Encoder
from core.subject import Subject
from core.technique import OneShot
from core.techniques.training.train import Train
from tests.core.fakes import context, plane_subject
from tests.core.techniques.architecture.small_gpt import subject_of

SIZES = {"dim": 8, "depth": 2, "heads": 2, "kv_heads": 2, "attention": "full", "attention_settings": {}, "ffn": "mlp"}


def vit(**changes: object):
    """A Vision Transformer of the digits, and where it came from."""
    return subject_of(source="builtin:vit", task="builtin:digits", length=None, **changes)


def encoder(pooling: str = "mean") -> Subject:
    """A subject whose model is a text classifier of at most 9 tokens."""
    subject = plane_subject()
    subject.models["main"] = Encoder(vocab_size=20, length=9, pooling=pooling, n_classes=3, ffn_dim=16, **SIZES)
    subject.models["main"].initialize_(torch.Generator().manual_seed(0))
    return subject


def check_texts_in_any_batch(step: OneShot, pooling: str) -> None:
    """A text is classified the same alone and beside a longer one."""
    subject = encoder(pooling)
    step.check(subject)
    step.apply(subject, context(subject))
    for parameter in subject.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    model = subject.model.double().eval()
    short, long = torch.randint(1, 20, (1, 4)), torch.randint(1, 20, (1, 9))
    both = torch.cat((F.pad(short, (0, 5)), long))
    mask = (torch.arange(9) < torch.tensor([[4], [9]])).long()
    torch.testing.assert_close(model(both, mask), torch.cat((model(short), model(long))))


def check_learning(step: OneShot, subject: Subject) -> None:
    """Every parameter moves, and the loss falls."""
    step.apply(subject, context(subject))
    before = {name: p.detach().clone() for name, p in subject.model.named_parameters()}
    record = MemoryRecord()
    Train(steps=70, batch_size=16, evaluations=0, learning_rate=3e-3).apply(subject, context(subject, record))
    losses = [value for _, value in record.curves["0/loss"]]
    assert sum(losses[-5:]) / 5 < losses[0] - 0.4
    assert all(not torch.equal(before[name], p) for name, p in subject.model.named_parameters())


def check_artifact(step: OneShot, later: OneShot | None, made: tuple, folder: Path) -> None:
    """What is saved after the step, and after a later one, answers the same."""
    subject, loaded = made
    step.apply(subject, context(subject))
    if later is not None:
        later.check(subject)
        later.apply(subject, context(subject))
    artifact.save(subject, folder, loaded)
    reloaded = artifact.load_models(folder)["main"]
    batch = artifact.probe_batch(subject.task)
    batch = {key: value.to(subject.dtype) if value.is_floating_point() else value for key, value in batch.items()}
    with torch.inference_mode():
        torch.testing.assert_close(reloaded(**batch), subject.model.eval()(**batch), atol=1e-5, rtol=1e-5)
