"""Models of every kind that calibration walks, with batches for them."""

import torch
import transformers
from torch import Tensor, nn

from core.models.conv1d import convert_conv1d_
from core.models.encoder import Encoder
from core.models.gpt import Gpt
from core.models.resnet import Resnet
from core.models.vit import Vit
from core.subject import Subject
from tests.core.fakes import PlaneTask, TwoLayers
from tests.core.models.conftest import CLASSES, configs

BLOCKS = {
    "dim": 16, "depth": 3, "heads": 2, "kv_heads": 1, "attention": "full", "attention_settings": {}, "ffn_dim": 24,
}  # fmt: skip
IMAGE = {"image_size": (8, 8), "channels": 1, "n_classes": 10}

Batches = list[dict[str, Tensor]]


def builtin(kind: str) -> nn.Module:
    if kind == "builtin:vit":
        return Vit(**BLOCKS, **IMAGE, ffn="mlp", patch=2, pooling="cls")
    if kind == "builtin:gpt":
        return Gpt(**BLOCKS, ffn="swiglu", vocab_size=64, length=12, positions="rotary", tied=True)
    if kind == "builtin:encoder":
        return Encoder(**BLOCKS, ffn="mlp", vocab_size=64, length=12, pooling="cls", n_classes=3)
    if kind == "builtin:resnet":
        return Resnet(depth=8, width=4, **IMAGE)
    return TwoLayers()


def made(name: str) -> tuple[nn.Module, Batches]:
    """A model with random weights and three batches of two examples."""
    torch.manual_seed(0)
    if name in CLASSES:
        model = getattr(transformers, CLASSES[name])(configs()[name])
        convert_conv1d_(model)
    else:
        model = builtin(name)
    with torch.no_grad():  # norms and biases too: nothing is 0 or 1 by chance
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval(), [_batch(name) for _ in range(3)]


def _batch(name: str) -> dict[str, Tensor]:
    if name in ("vit", "deit", "builtin:vit", "builtin:resnet"):
        return {"pixel_values": torch.randn(2, 1, 8, 8)}
    if name == "plain":
        return {"x": torch.randn(2, 8)}
    tokens = {"input_ids": torch.randint(4, 64, (2, 12))}
    if name in ("builtin:encoder", "bert"):
        tokens["attention_mask"] = torch.tensor([[1] * 12, [1] * 7 + [0] * 5])
    return tokens


class GivenTask(PlaneTask):
    """Given examples, as a task's calibration split."""

    def __init__(self, batches: Batches):
        self.data = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {key: value[indices] for key, value in self.data.items()}


def subject_of(name: str) -> Subject:
    model, batches = made(name)
    return Subject({"main": model}, GivenTask(batches), {"main": {}})
