"""Tiny models of every family with a task of random inputs, as subjects that can be saved and loaded again."""

import json

import torch
from torch import Tensor

from core import models
from core.models.loaded import Loaded
from core.models.tokenizer import ByteTokenizer
from core.scores import ACCURACY
from core.subject import Subject
from core.tasks.base import InputFormat
from tests.core.models.conftest import CLASSES, SIZES, configs

HUGGING_FACE = ("llama", "qwen2", "opt", "gpt2", "bert", "vit")
BUILTIN = ("builtin vit", "builtin gpt", "builtin encoder")
VOCABULARY, LENGTH = 64, 12


class RandomTask:
    """Random images or tokens; texts of a classifier are padded to different lengths."""

    name = "test:random"
    length = LENGTH
    score = ACCURACY

    def __init__(self, kind: str):
        self.kind_of_input = kind
        self.class_names = tuple(map(str, range({"text": 0, "padded": 3, "image": 10}[kind])))

    def split(self, name: str) -> "RandomTask":
        return self

    def __len__(self) -> int:
        return 24

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        if self.kind_of_input == "image":
            images = torch.randn(len(self), 1, 8, 8, generator=generator)
            return {"pixel_values": images[indices], "labels": indices % 10}
        tokens = torch.randint(4, VOCABULARY, (len(self), LENGTH), generator=generator)[indices]
        if self.kind_of_input == "text":
            return {"input_ids": tokens, "labels": tokens}
        mask = (torch.arange(LENGTH) < 3 + indices[:, None] % 10).long()
        return {"input_ids": tokens * mask, "attention_mask": mask, "labels": indices % 3}


def kind_of(family: str) -> str:
    """What a family reads: image, text (without padding) or padded text."""
    if family.endswith(("vit", "deit", "resnet")):
        return "image"
    return "padded" if family in ("bert", "builtin encoder") else "text"


def config_of(family: str, depth: int, **more: object) -> dict:
    """The resolved config of a tiny model."""
    if family.startswith("builtin"):
        return {"source": family.replace(" ", ":"), **_builtin(family, depth), **more}
    made = _hugging_face(family, depth, more)
    plain = json.loads(made.to_json_string(use_diff=False))
    heads = {"image": "ImageClassification", "padded": "SequenceClassification", "text": "CausalLM"}
    options = {"auto_class": f"AutoModelFor{heads[kind_of(family)]}", "attention": "sdpa", "dtype": "float32"}
    return {"source": "hf", "config": plain, "conv1d_as_linear": True, "experts_as_linears": True, **options}


def subject_of(family: str, depth: int = 5, dtype: torch.dtype = torch.float32, **more: object) -> Subject:
    """A subject with random weights, norms included."""
    config = config_of(family, depth, **more)
    torch.manual_seed(0)
    model = models.build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif "embed" in name or name == "cls":
                parameter.normal_()
            elif parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    return Subject({"main": model.to(dtype).eval()}, RandomTask(kind_of(family)), {"main": config}, trained=True)


def loaded(subject: Subject) -> Loaded:
    """What `artifact.save` wants to know of the source."""
    return Loaded(
        config=subject.configs["main"],
        input_format=InputFormat(tokenizer=ByteTokenizer(), length=LENGTH),
        trained=True,
        module=subject.model,
        content_hash="random",
    )


def _builtin(family: str, depth: int) -> dict:
    if family == "builtin resnet":
        return {"depth": 8, "width": 8, "image_size": [8, 8], "channels": 1, "n_classes": 10}
    blocks = {"dim": 32, "depth": depth, "heads": 4, "kv_heads": 4, "attention": "full", "attention_settings": {}}
    blocks |= {"ffn": "mlp", "ffn_dim": 48}
    if family == "builtin vit":
        return {**blocks, "image_size": [8, 8], "channels": 1, "patch": 2, "pooling": "cls", "n_classes": 10}
    text = {**blocks, "vocab_size": VOCABULARY, "length": LENGTH}
    if family == "builtin gpt":
        return {**text, "kv_heads": 2, "positions": "rotary", "tied": True}
    return {**text, "pooling": "cls", "n_classes": 3}


def _hugging_face(family: str, depth: int, more: dict):
    import transformers

    if family == "mixtral":
        sizes = {**SIZES, "num_hidden_layers": depth, "num_key_value_heads": 2, "intermediate_size": 48}
        return transformers.MixtralConfig(vocab_size=VOCABULARY, num_local_experts=4, **sizes, **more)
    if family == "qwen2":
        types = [("full_attention", "sliding_attention")[index % 2] for index in range(depth)]
        sizes = {**SIZES, "num_hidden_layers": depth, "num_key_value_heads": 2, "intermediate_size": 48}
        return transformers.Qwen2Config(
            vocab_size=VOCABULARY, sliding_window=4, use_sliding_window=True, layer_types=types, **sizes, **more
        )
    made = configs()[family]
    made.num_hidden_layers, made.architectures = depth, [CLASSES[family]]
    for name, value in more.items():
        setattr(made, name, value)
    return made
