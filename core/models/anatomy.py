"""Finds a model's blocks, projections, feed-forward networks, norms, embeddings and heads by full name.

It knows the reference Transformer and Hugging Face's LLaMA-like, OPT, GPT-2, BERT and ViT/DeiT families, and
all models whose blocks use the same names. If a step replaced parts of the reference Transformer, the blocks' other
halves are still known. In other architectures, only linear layers are known.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from core.errors import SpecError
from core.models.block_names import LAYOUTS, BlockNames
from core.models.meta import tied_parameters
from core.nn.transformer import Transformer

_EMBEDDING_NAMES = ("patch_embedding", "patch_embeddings.projection")
_NOT_TOKENS = ("position", "wpe", "token_type")  # embeddings of something else
_OUTPUT_NAMES = (
    "head",
    "lm_head",
    "classifier",
    "score",
    "cls_classifier",
    "distillation_classifier",
    "classifier.out_proj",
)
_NORM_NAMES = (
    "norm",
    "model.norm",
    "model.decoder.final_layer_norm",
    "transformer.ln_f",
    "vit.layernorm",
    "deit.layernorm",
)


@dataclass(frozen=True)
class Anatomy:
    """A model's parts by full name; unknown parts are empty or None."""

    architecture: str  # for people: "LlamaForCausalLM"
    layout: str | None  # key of LAYOUTS, where all blocks are laid out so
    blocks: list[BlockNames]  # where the parts of all of them are known
    blocks_list: str | None  # the nn.ModuleList or ReversibleStack that holds the blocks
    chain: list[str]  # all blocks, also those whose parts are not known
    attentions: dict[str, BlockNames]  # by block: those whose attention is known, their other half may not be
    feeds: dict[str, BlockNames]  # the same of feed-forward networks
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    causal: bool
    norm: str | None  # the last one, before the head
    embeddings: list[str]  # nn.Embedding, and the convolution that embeds patches
    outputs: list[str]  # the layers that give logits
    tied: bool  # the head shares an embedding's weights
    linears: list[str]  # every dense nn.Linear
    swapped: bool  # a block's parts are swapped for such as are not known here

    @property
    def head(self) -> str | None:
        """The layer that gives the logits."""
        return self.outputs[0] if self.outputs else None

    def require(self, part: str) -> None:
        """Raise SpecError if `part`, one of the keys below, is unknown."""
        known = {
            "blocks": bool(self.chain),
            "blocks' parts": bool(self.blocks),
            "heads": self.heads is not None,
            "feed-forward networks": bool(self.feeds),
            "separate q, k, v": bool(self.attentions) and not self._fused,
            "norm": self.norm is not None,
            "head": self.head is not None,
        }
        if not known[part]:
            message = f"is a {self.architecture}, whose {part} are not known to Slimboard"
            remedy = "Choose a built-in Transformer or a LLaMA-like, OPT, BERT or ViT model, or remove this step."
            if part == "separate q, k, v" and self._fused:
                message = f"is a {self.architecture}, which has one linear layer for q, k and v"
            elif self.swapped:
                message = f"was changed by an earlier step: its {part} are not known to Slimboard"
                remedy = "Remove this step or the one that swapped its attention or feed-forward networks."
            raise SpecError.of("model.source", self.architecture, message, remedy)

    @property
    def _fused(self) -> bool:
        return any(block.fused for block in self.attentions.values())


def anatomy(model: nn.Module) -> Anatomy:
    """The known parts of a model; works on the meta device and after techniques replaced modules."""
    modules = dict(model.named_modules())
    blocks_list, layout = _find_blocks(modules)
    blocks = _blocks(model, modules, blocks_list, layout)
    attentions = feeds = {block.name: block for block in blocks}
    chain = list(attentions)
    if not blocks and isinstance(model, Transformer):
        blocks_list, chain = "blocks", [f"blocks.{name}" for name, _ in model.blocks.named_children()]
        attentions, feeds = _halves(modules, chain)
    embeddings = [n for n, m in modules.items() if isinstance(m, nn.Embedding) or n.endswith(_EMBEDDING_NAMES)]
    everywhere = dict(model.named_modules(remove_duplicate=False))  # a packed head may be its embedding's table
    outputs = [n for n in _OUTPUT_NAMES if n in everywhere and not list(everywhere[n].children())]
    heads, kv_heads, head_dim = _heads(model, modules, list(attentions.values()))
    shared = [{name.removesuffix(".weight") for name in group} for group in tied_parameters(model)]
    return Anatomy(
        architecture=type(model).__name__,
        layout=layout,
        blocks=blocks,
        blocks_list=blocks_list,
        chain=chain,
        attentions=attentions,
        feeds=feeds,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        causal=_is_causal(modules, blocks[0].attention if blocks else chain[0] if chain else None),
        norm=next((n for n in _NORM_NAMES if n in modules), None) if chain else None,
        embeddings=embeddings,
        outputs=outputs,
        tied=any(group & set(embeddings) and group & set(outputs) for group in shared),
        linears=[n for n, m in modules.items() if type(m) is nn.Linear],
        swapped=not blocks and isinstance(model, Transformer),
    )


def heads_of(model: nn.Module, known: Anatomy, block: BlockNames) -> tuple[int, int]:
    """Current numbers of query heads and key-value heads of a block, which structured pruning changes per block."""
    assert known.head_dim is not None
    rows = [model.get_parameter(f"{name}.weight").shape[0] for name in (block.q, block.k)]
    if block.fused:
        rows = [n // 3 for n in rows]
    return rows[0] // known.head_dim, rows[1] // known.head_dim


def attention_halves(model: nn.Module, known: Anatomy) -> list[BlockNames]:
    """Names of the blocks whose attention is known, also where no layout has the other half (mixtures of experts)."""
    if known.attentions:
        return list(known.attentions.values())
    for name, module in model.named_modules():
        for names in LAYOUTS.values() if isinstance(module, nn.ModuleList) and len(module) else ():
            if all(_has_attention(block, names) and _has(block, names.norm2) for block in module):
                return [names.within(f"{name}.{index}", pre_norm=True) for index in module._modules]
    return []


def prunable(model: nn.Module, kinds: tuple[type[nn.Module], ...] = (nn.Linear,)) -> list[str]:
    """Full names of the layers of exactly these types, except embeddings, output heads and layers tied to them.

    Layers that structured pruning emptied are also excluded.
    """
    known = anatomy(model)
    excluded = {*known.embeddings, *known.outputs}
    for group in tied_parameters(model):
        owners = {name.rpartition(".")[0] for name in group}
        if owners & excluded:
            excluded |= owners
    layers = [(name, module) for name, module in model.named_modules() if type(module) in kinds]
    return [name for name, module in layers if name not in excluded and module.get_parameter("weight").numel()]


def token_tables(model: nn.Module) -> list[str]:
    """Full names of the plain embeddings of tokens; those of positions and segments are left out."""
    embeddings = [name for name, module in model.named_modules() if type(module) is nn.Embedding]
    return [name for name in embeddings if not any(part in name for part in _NOT_TOKENS)]


def _find_blocks(modules: dict[str, nn.Module]) -> tuple[str | None, str | None]:
    for name, module in modules.items():
        if isinstance(module, nn.ModuleList) and len(module):
            for layout, names in LAYOUTS.items():
                if all(_is_laid_out(block, names) for block in module):
                    return name, layout
    return None, None


def _is_laid_out(block: nn.Module, names: BlockNames) -> bool:
    return _has_attention(block, names) and all(_has(block, part) for part in names.feed_parts)


def _has_attention(block: nn.Module, names: BlockNames) -> bool:
    """It has these parts, and its attention says of no further ones (a gate) that would have to be cut along."""
    if not all(_has(block, part) for part in names.attention_parts):
        return False
    return not getattr(block.get_submodule(names.attention), "has_further_parts", False)


def _halves(modules: dict[str, nn.Module], chain: list[str]) -> tuple[dict[str, BlockNames], dict[str, BlockNames]]:
    """Of a reference Transformer's blocks, those whose attention is known and those whose feed-forward network is."""
    attentions, feeds = {}, {}
    for name in chain:
        for layout in ("builtin", "builtin gated"):  # a gated network has the parts of a plain one
            names = LAYOUTS[layout]
            if _has_attention(modules[name], names):
                attentions[name] = names.within(name, pre_norm=True)
            if all(_has(modules[name], part) for part in names.feed_parts):
                feeds[name] = names.within(name, pre_norm=True)
    return attentions, feeds


def _has(module: nn.Module, name: str) -> bool:
    for part in name.split("."):
        if part not in module._modules:
            return False
        module = module._modules[part]  # type: ignore[assignment]
    return True


def _blocks(
    model: nn.Module, modules: dict[str, nn.Module], blocks_list: str | None, layout: str | None
) -> list[BlockNames]:
    if blocks_list is None or layout is None:
        return []
    pre_norm = getattr(getattr(model, "config", None), "do_layer_norm_before", True)  # False for one size of OPT
    return [LAYOUTS[layout].within(f"{blocks_list}.{name}", pre_norm) for name in modules[blocks_list]._modules]


def _heads(
    model: nn.Module, modules: dict[str, nn.Module], blocks: list[BlockNames]
) -> tuple[int | None, int | None, int | None]:
    if not blocks:
        return None, None, None
    attention: Any = modules[blocks[0].attention]
    if hasattr(attention, "kv_heads"):
        return attention.heads, attention.kv_heads, attention.head_dim
    config: Any = getattr(model, "config", None)
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:
        return None, None, None
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return heads, kv_heads, getattr(config, "head_dim", None) or config.hidden_size // heads


def _is_causal(modules: dict[str, nn.Module], mixing: str | None) -> bool:
    for part in modules[mixing].modules() if mixing is not None else ():
        causal = getattr(part, "causal", getattr(part, "is_causal", None))
        if causal is not None:
            return bool(causal)
    return False
