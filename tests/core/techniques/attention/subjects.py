"""Small built-in models on made-up inputs, and what the tests of sparse attention ask of them."""

import torch

from core.engine.recording import MemoryRecord
from core.models.encoder import Encoder
from core.models.gpt import Gpt
from core.models.vit import Vit
from core.subject import Subject
from core.technique import OneShot
from tests.core.fakes import PlaneTask, context

BLOCKS = {"dim": 32, "depth": 2, "heads": 4, "kv_heads": 4, "ffn": "mlp", "ffn_dim": 64}
FULL = {"attention": "full", "attention_settings": {}}
CONFIGS = {
    "vit": {"image_size": [8, 8], "channels": 1, "patch": 1, "pooling": "cls", "n_classes": 3},
    "mean": {"image_size": [8, 8], "channels": 1, "patch": 1, "pooling": "mean", "n_classes": 3},
    "encoder": {"vocab_size": 50, "length": 64, "pooling": "cls", "n_classes": 3},
    "gpt": {"vocab_size": 50, "length": 64, "positions": "learned", "tied": True},
}
SOURCES = {"vit": ("builtin:vit", Vit), "mean": ("builtin:vit", Vit), "encoder": ("builtin:encoder", Encoder)}
SOURCES["gpt"] = ("builtin:gpt", Gpt)


def subject_of(kind: str) -> Subject:
    """A fresh model of 64 tokens (65 with its class token)."""
    source, module = SOURCES[kind]
    config = {**BLOCKS, **FULL, **CONFIGS[kind]}
    model = module(**config)
    model.initialize_(torch.Generator().manual_seed(0))
    return Subject({"main": model.eval()}, PlaneTask(), {"main": {"source": source, **config}}, trained=True)


def applied(step: OneShot, kind: str, record: MemoryRecord | None = None) -> Subject:
    """A fresh model after a step that does not refuse it."""
    subject = subject_of(kind)
    step.check(subject)
    step.apply(subject, context(subject, record))
    return subject


def inputs_of(kind: str) -> dict[str, torch.Tensor]:
    """Three examples; of the encoder's the second is padded."""
    generator = torch.Generator().manual_seed(1)
    if kind in ("vit", "mean"):
        return {"pixel_values": torch.rand(3, 1, 8, 8, generator=generator)}
    tokens = torch.randint(50, (3, 64), generator=generator)
    if kind == "gpt":
        return {"input_ids": tokens}
    return {"input_ids": tokens, "attention_mask": (torch.arange(64) < torch.tensor([[64], [23], [64]])).long()}
