"""The models and data that the comparison runs on, and how long each is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Vehicle:
    """A model on a task, trained from scratch; `source` may have to write its files into a folder first."""

    source: Callable[[Path], dict[str, Any]]
    task: dict[str, Any]
    steps: int
    training: dict[str, Any]


def _builtin(name: str, **settings: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"source": f"builtin:{name}", **settings}


def _llama(folder: Path) -> dict[str, Any]:
    """A Hugging Face folder with a small LLaMA of random weights (RoPE, grouped-query attention, SwiGLU)."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    target = folder / "llama"
    if not (target / "model.safetensors").exists():
        letters = {"[PAD]": 0, "[UNK]": 1, **{chr(97 + i): i + 2 for i in range(26)}, " ": 28, "\n": 29}
        words = Tokenizer(models.WordLevel(letters, unk_token="[UNK]"))
        words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]"
        ).save_pretrained(target)
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=len(letters),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=256,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(target)
    return {"source": f"hf:{target}"}


MARKOV = {"source": "builtin:markov", "length": 64}
VEHICLES = {
    "vit": Vehicle(
        _builtin("vit", dim=64, depth=4, heads=4, patch=8),
        {"source": "builtin:shapes"},
        600,
        {"batch_size": 64, "learning_rate": 1e-3},
    ),
    "gpt": Vehicle(
        _builtin("gpt", dim=64, depth=4, heads=4, length=64), MARKOV, 500, {"batch_size": 32, "learning_rate": 3e-3}
    ),
    "resnet": Vehicle(
        _builtin("resnet", depth=8, width=16),
        {"source": "builtin:shapes"},
        250,
        {"batch_size": 64, "learning_rate": 3e-3},
    ),
    "llama": Vehicle(_llama, MARKOV, 500, {"batch_size": 32, "learning_rate": 3e-3}),
}
