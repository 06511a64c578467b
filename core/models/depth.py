"""Removes blocks of a model, and updates everything that counts them (caches, configs)."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from core.errors import SpecError
from core.models.anatomy import anatomy
from core.nn.attention.huggingface_sliding_window import HuggingFaceSlidingWindow
from core.nn.reversible import ReversibleStack
from core.nn.rwkv.block import RwkvBlock
from core.nn.tokens.block import ReducingBlock

REMEDY = "Choose a built-in Transformer or a LLaMA-like, OPT, GPT-2, BERT or ViT model, or remove this step."


def check_blocks(model: nn.Module, config: dict[str, Any]) -> int:
    """Number of blocks; raises SpecError if they are unknown or cannot be removed individually."""
    known = anatomy(model)
    known.require("blocks")
    if _depth_key(model, config) is None:
        message = f"is a {known.architecture}, whose config does not state the number of blocks"
        raise SpecError.of("model.source", known.architecture, message, REMEDY)
    if getattr(getattr(model, "config", None), "scale_attn_by_inverse_layer_idx", False):
        message = f"is a {known.architecture} whose attention scales its scores by the block's index"
        raise SpecError.of("model.source", known.architecture, message, REMEDY)
    if any(isinstance(model.get_submodule(name), ReducingBlock) for name in known.chain):
        message = f"is a {known.architecture} whose blocks reduce tokens"
        remedy = "Remove blocks before the step that reduces tokens."
        raise SpecError.of("model.source", known.architecture, message, remedy)
    return len(known.chain)


def keep_blocks_(model: nn.Module, config: dict[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Keep only the blocks `kept` (ascending), in place; the resolved config of the shallower model.

    Attention modules that find their cache by block index get the new index. The config of a Hugging
    Face model is updated too, including lists with one entry per layer (`layer_types`).
    """
    depth = check_blocks(model, config)
    key, blocks_list = _depth_key(model, config), anatomy(model).blocks_list
    assert key is not None
    assert blocks_list is not None
    before = model.get_submodule(blocks_list)
    blocks = list(before.children())
    shallower = nn.ModuleList([blocks[index] for index in kept])
    model.set_submodule(blocks_list, _reversible(shallower) if isinstance(before, ReversibleStack) else shallower)
    for place, index in enumerate(kept):
        _renumber_(blocks[index], place)
    _hand_on_(blocks[0], blocks[kept[0]])
    if config["source"] != "hf":
        return {**config, key: len(kept)}
    changes = {key: len(kept)} | {
        name: [value[index] for index in kept]
        for name, value in config["config"].items()
        if "layer" in name and isinstance(value, list) and len(value) == depth
    }
    for name, value in changes.items():
        setattr(model.config, name, value)
    return {**config, "config": {**config["config"], **changes}}


def _depth_key(model: nn.Module, config: dict[str, Any]) -> str | None:
    """What a resolved config calls the number of blocks; None if it does not say it."""
    depth = len(anatomy(model).chain)
    if config.get("source") == "hf":
        hf_config: Any = model.config
        key = hf_config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
        return key if config["config"].get(key) == depth else None
    return "depth" if config.get("depth") == depth else None


def _renumber_(block: nn.Module, place: int) -> None:
    for module in block.modules():
        if isinstance(getattr(module, "layer_idx", None), int):
            module.layer_idx = place  # type: ignore[assignment]
        if isinstance(module, HuggingFaceSlidingWindow):
            module.layer = place


def _reversible(blocks: nn.ModuleList) -> ReversibleStack:
    stack = ReversibleStack(len(blocks))
    stack.adopt(blocks)
    return stack


def _hand_on_(before: nn.Module, first: nn.Module) -> None:
    """RWKV's first block normalises the embeddings for all of them: whichever is the first one does."""
    if isinstance(before, RwkvBlock) and isinstance(first, RwkvBlock):
        first.norm0, first.first = before.norm0, True
