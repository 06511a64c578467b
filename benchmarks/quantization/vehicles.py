"""The models that the comparison quantizes, and how each is trained until it is clearly useful."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.byte_tokenizer import N_TOKENS, save_byte_tokenizer

TEXT = {"source": "builtin:python-docs", "length": 128}
SHAPES = {"source": "builtin:shapes"}


@dataclass(frozen=True)
class Vehicle:
    """A model from a folder or a built-in one, its task, and its training."""

    source: Callable[[Path], dict[str, Any]]
    task: dict[str, Any]
    training: dict[str, Any]


def _llama(folder: Path) -> dict[str, Any]:
    """A LLaMA of 0.9 million random weights (RoPE, grouped-query attention, SwiGLU)."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=N_TOKENS,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return _save(folder / "llama", transformers.LlamaForCausalLM, config)


def _opt(folder: Path) -> dict[str, Any]:
    """An OPT of 0.9 million random weights (learned positions, LayerNorm, ReLU, tied embedding)."""
    import transformers

    config = transformers.OPTConfig(
        vocab_size=N_TOKENS,
        hidden_size=128,
        ffn_dim=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        max_position_embeddings=256,
        word_embed_proj_dim=128,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return _save(folder / "opt", transformers.OPTForCausalLM, config)


def _vit(folder: Path) -> dict[str, Any]:
    return {"source": "builtin:vit", "dim": 96, "depth": 4, "heads": 4, "patch": 8}


def _save(target: Path, model: Any, config: Any) -> dict[str, Any]:
    """A folder as `save_pretrained` writes it, with a tokenizer of single bytes."""
    import torch

    if not (target / "model.safetensors").exists():
        save_byte_tokenizer(target)
        torch.manual_seed(0)
        model(config).save_pretrained(target)
    return {"source": f"hf:{target}"}


def _of_text(learning_rate: float) -> dict[str, Any]:
    return {"steps": 1200, "batch_size": 16, "learning_rate": learning_rate}


VEHICLES = {
    "llama": Vehicle(_llama, TEXT, _of_text(3e-3)),
    "opt": Vehicle(_opt, TEXT, _of_text(2e-3)),
    "vit": Vehicle(_vit, SHAPES, {"steps": 1500, "batch_size": 64, "learning_rate": 1e-3}),
}
