"""Small tasks, and tiny Hugging Face checkpoints that are made here."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from core.settings import settings
from core.tasks.base import Kind


@dataclass
class Shape:
    """What of a task loading a model asks for."""

    name: str
    kind: Kind
    n_classes: int | None = None
    image_shape: tuple[int, int, int] | None = None
    length: int | None = None
    class_names: tuple[str, ...] = ()


@pytest.fixture
def image_task():
    return Shape("builtin:digits", Kind.IMAGE_CLASSIFICATION, n_classes=10, image_shape=(1, 8, 8))


@pytest.fixture
def language_task():
    return Shape("builtin:python-docs", Kind.LANGUAGE_MODELLING, length=32)


@pytest.fixture
def text_task():
    return Shape("file:reviews.csv", Kind.TEXT_CLASSIFICATION, n_classes=3, length=24)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, **SIZES}
IMAGE = {"image_size": 8, "patch_size": 2, "num_channels": 1, "intermediate_size": 48, "num_labels": 10, **SIZES}


def configs() -> dict[str, transformers.PreTrainedConfig]:
    return {
        "llama": transformers.LlamaConfig(intermediate_size=48, num_key_value_heads=2, **TEXT),
        "opt": transformers.OPTConfig(
            ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64, pad_token_id=0, **TEXT
        ),
        "gpt2": transformers.GPT2Config(n_positions=64, **TEXT),
        "bert": transformers.BertConfig(intermediate_size=48, max_position_embeddings=64, num_labels=3, **TEXT),
        "vit": transformers.ViTConfig(**IMAGE),
        "deit": transformers.DeiTConfig(**IMAGE),
    }


CLASSES = {
    "llama": "LlamaForCausalLM",
    "opt": "OPTForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "bert": "BertForSequenceClassification",
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
}


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a letter; a text by itself gets [BOS] and [EOS]."""
    letters = {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[UNK]": 3, **{c: i for i, c in enumerate("abcdefghijklmnop .", 4)}}
    made = Tokenizer(models.WordLevel(letters, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="[BOS]", eos_token="[EOS]", pad_token="[PAD]", unk_token="[UNK]"
    )


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """A folder that users' files may lie in."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("SLIMBOARD_DATA", str(folder))
    monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture
def checkpoint(data_folder):
    """Saves a tiny model of a family and gives it back with its folder."""

    def save(family: str, model_class: str | None = None) -> tuple[torch.nn.Module, Path]:
        torch.manual_seed(0)
        config = configs()[family]
        model = getattr(transformers, model_class or CLASSES[family])(config).eval()
        folder = data_folder / family
        model.save_pretrained(folder)
        if family not in ("vit", "deit"):
            tokenizer().save_pretrained(folder)
        return model, folder

    return save
