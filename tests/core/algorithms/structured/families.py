"""Small models of every family with weights that matter, and tasks on random data for them."""

import torch
import transformers
from torch import Tensor, nn

from core.models.conv1d import convert_conv1d_
from core.models.gpt import Gpt
from core.models.resnet import Resnet
from core.models.vit import Vit
from core.subject import Subject
from core.tasks.base import Kind
from core.tasks.classification import Classification
from tests.core.models.conftest import CLASSES, configs

TRANSFORMERS = ["vit", "gpt", "hf llama", "hf opt", "hf bert", "hf vit"]
FAMILIES = [*TRANSFORMERS, "resnet"]


class RandomTask(Classification):
    """Random images, texts or windows of tokens; every split is all of them."""

    length = None

    def __init__(self, inputs: dict[str, Tensor], labels: Tensor):
        self.inputs, self.labels = inputs, labels
        self.kind = Kind.LANGUAGE_MODELLING if labels.ndim == 2 else Kind.IMAGE_CLASSIFICATION
        self.class_names = () if labels.ndim == 2 else tuple(map(str, range(int(labels.max()) + 1)))

    def split(self, name: str) -> "RandomTask":
        return self

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {**{key: value[indices] for key, value in self.inputs.items()}, "labels": self.labels[indices]}

    def loss(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        if self.labels.ndim == 1:
            return super().loss(logits, batch)
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())


def images(n: int = 12) -> RandomTask:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(n, 1, 8, 8, generator=generator)
    return RandomTask({"pixel_values": pixels}, torch.randint(10, (n,), generator=generator))


def windows(n: int = 12, length: int = 10) -> RandomTask:
    tokens = torch.randint(64, (n, length + 1), generator=torch.Generator().manual_seed(1))
    return RandomTask({"input_ids": tokens[:, :-1]}, tokens[:, 1:])


def texts(n: int = 12, length: int = 10) -> RandomTask:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(64, (n, length), generator=generator)
    attention_mask = (torch.arange(length) < torch.randint(3, length, (n, 1), generator=generator)).long()
    labels = torch.randint(3, (n,), generator=generator)
    return RandomTask({"input_ids": tokens, "attention_mask": attention_mask}, labels)


BLOCKS = {"dim": 32, "depth": 2, "heads": 4, "attention": "full", "attention_settings": {}}


def build(family: str) -> tuple[nn.Module, RandomTask]:
    if family == "vit":
        mlp = {"kv_heads": 4, "ffn": "mlp", "ffn_dim": 48}
        image = {"image_size": (8, 8), "channels": 1, "patch": 4, "pooling": "cls", "n_classes": 10}
        return Vit(**BLOCKS, **mlp, **image), images()
    if family == "gpt":
        gated = {"kv_heads": 2, "ffn": "swiglu", "ffn_dim": 48}
        return Gpt(**BLOCKS, **gated, vocab_size=64, length=32, positions="rotary", tied=True), windows()
    if family == "resnet":
        return Resnet(depth=8, width=16, image_size=(8, 8), channels=1, n_classes=10), images()
    name = family.removeprefix("hf ")
    config = configs()[name]
    config.use_cache = False
    model = getattr(transformers, CLASSES[name])(config)
    convert_conv1d_(model)
    return model, {"bert": texts, "vit": images, "deit": images}.get(name, windows)()


def subject_of(family: str) -> Subject:
    """A subject whose every weight, bias, norm and running statistic matters."""
    torch.manual_seed(0)
    model, task = build(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.copy_(centre + 1.5 * scale * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return Subject({"main": model.eval()}, task, {"main": {}})


def answers(subject: Subject) -> Tensor:
    from core.tasks.base import logits_of

    batch = subject.task.batch(torch.arange(len(subject.task)))
    with torch.no_grad():
        return logits_of(subject.model, batch)


def switch_off_(subject: Subject, layer: str, features: Tensor) -> None:
    """Zero the weights by which `layer` reads these inputs: what produced them is gone."""
    with torch.no_grad():
        subject.model.get_parameter(f"{layer}.weight")[:, features] = 0
