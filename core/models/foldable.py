"""Where a channel can be divided by a factor and multiplied by it again, with nothing between that would notice.

Such a place has a producer, which is a norm or a linear layer, and consumers, which are all layers that read its
channels. Dividing the producer's outputs and multiplying the consumers' input columns leaves the network's function as
it is. These are: a norm and the projections after it, the values and the output projection of attention, both of them
linear in each channel, `up` and `down` of a gated network, and of a plain one with ReLU. GELU lets no factor through.
A norm after an addition is not one, because the residual stream reads it too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from core.models.anatomy import Anatomy, anatomy, attention_halves
from core.models.block_names import BlockNames
from core.models.residual import FEED_FORWARD, NORMS
from core.nn.experts.feed_forward import ExpertFeedForward
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.mixture import MixtureOfExperts

MIXTURES = {  # Hugging Face's blocks that are pre-norm, with their mixture of experts
    "MixtralDecoderLayer": "MixtralSparseMoeBlock",
    "OlmoeDecoderLayer": "OlmoeSparseMoeBlock",
    "Qwen2MoeDecoderLayer": "Qwen2MoeSparseMoeBlock",
    "Qwen3MoeDecoderLayer": "Qwen3MoeSparseMoeBlock",
}
PRE_NORM = {*FEED_FORWARD, *MIXTURES, "GemmaDecoderLayer", "Gemma2DecoderLayer"}
PLAIN_NORMS = {*NORMS, "MixtralRMSNorm", "OlmoeRMSNorm", "Qwen2MoeRMSNorm", "Qwen3MoeRMSNorm"}
OFFSET_NORMS = {"GemmaRMSNorm", "Gemma2RMSNorm"}  # multiply by 1 + weight


@dataclass(frozen=True)
class Fold:
    """One such place. Names are full; channels are those of the producer, from `offset` on."""

    producer: str
    consumers: tuple[str, ...]  # linear layers, or experts'
    parent: str  # the smallest module that contains the consumers and all that they alone lead to
    channels: int
    readers: tuple[str, ...] = ()  # further parameters [n, channels] that read the channels: routers
    offset: int = 0
    sources: tuple[int, ...] | None = None  # the channel of each input of the consumers; None: they are the same

    @property
    def is_norm(self) -> bool:
        """Whether the producer is a norm: other ones lie within a half of a block."""
        return self.parent != self.consumers[0]


def folds(model: nn.Module) -> list[Fold]:
    """Every place of a model whose consumers are dense, in the order of execution."""
    known = anatomy(model)
    attentions = {names.name: names for names in attention_halves(model, known)}
    found: list[Fold] = []
    for block in dict.fromkeys([*attentions, *known.feeds]):
        if block in attentions:
            found += _of_attention(model, known, attentions[block])
        if block in known.feeds:
            found += _of_feed_forward(model, known.feeds[block])
        elif block in attentions:
            found += _of_mixture(model, attentions[block])
    return found


def is_offset_norm(norm: nn.Module) -> bool:
    """Whether a norm multiplies by 1 + weight."""
    return type(norm).__name__ in OFFSET_NORMS


def _of_attention(model: nn.Module, known: Anatomy, names: BlockNames) -> Iterator[Fold]:
    yield from _after_norm(model, names, names.norm1, tuple(dict.fromkeys(names.groups[0])), names.attention)
    v, o = model.get_submodule(names.v), model.get_submodule(names.o)
    if type(v) is not nn.Linear or type(o) is not nn.Linear or not o.in_features:
        return
    channels = v.out_features // 3 if names.fused else v.out_features
    sources = None
    if channels != o.in_features:
        head_dim = getattr(model.get_submodule(names.attention), "head_dim", known.head_dim)
        if not isinstance(head_dim, int):
            return
        shared = o.in_features // channels  # query heads that share a value head
        sources = tuple(h // shared * head_dim + j for h in range(o.in_features // head_dim) for j in range(head_dim))
    yield Fold(names.v, (names.o,), names.o, channels, offset=2 * channels if names.fused else 0, sources=sources)


def _of_feed_forward(model: nn.Module, names: BlockNames) -> Iterator[Fold]:
    into = tuple(names.groups[2])
    yield from _after_norm(model, names, names.norm2, into, _parent_of(model, names))
    up, down = model.get_submodule(names.up), model.get_submodule(names.down)
    passes = names.gate is not None or _activation(model) == "relu"
    if passes and type(up) is nn.Linear and type(down) is nn.Linear and up.out_features:
        yield Fold(names.up, (names.down,), names.down, up.out_features)


def _of_mixture(model: nn.Module, names: BlockNames) -> Iterator[Fold]:
    """Of a block whose feed-forward network is a mixture of experts: all experts read the one norm."""
    block = model.get_submodule(names.name)
    kind = MIXTURES.get(type(block).__name__)
    mixtures = [
        (n, m) for n, m in block.named_children() if isinstance(m, MixtureOfExperts) or type(m).__name__ == kind
    ]
    if not mixtures:
        return
    part, mixture = mixtures[0]
    prefix = f"{names.name}.{part}"
    networks = [(f"{prefix}.{name}", m) for name, m in mixture.named_modules() if _is_network(m)]
    into = tuple(f"{name}.{layer}" for name, m in networks for layer in _layers_of(m)[:-1])
    if not into or any(parameter.dim() > 2 for parameter in mixture.parameters()):
        return  # its experts are not linear layers
    own = {f"{layer}.weight" for layer in into}
    width = model.get_submodule(into[0]).in_features
    readers = tuple(
        f"{prefix}.{name}"
        for name, parameter in mixture.named_parameters()
        if parameter.dim() == 2 and f"{prefix}.{name}" not in own and not name.startswith("experts.")
        if parameter.shape[1] == width and not name.endswith("down_proj.weight")
    )
    yield from _after_norm(model, names, names.norm2, into, prefix, readers)
    for name, network in networks:
        *_, up, down = _layers_of(network)
        producer, consumer = network.get_submodule(up), network.get_submodule(down)
        gated = len(_layers_of(network)) == 3
        if gated and type(producer) in (nn.Linear, ExpertLinear) and type(consumer) is type(producer):
            yield Fold(f"{name}.{up}", (f"{name}.{down}",), f"{name}.{down}", int(producer.out_features))


def _after_norm(
    model: nn.Module,
    names: BlockNames,
    norm: str,
    consumers: tuple[str, ...],
    parent: str,
    readers: tuple[str, ...] = (),
) -> Iterator[Fold]:
    module = model.get_submodule(norm)
    weight = module._parameters.get("weight")
    is_known = type(module).__name__ in PLAIN_NORMS | OFFSET_NORMS
    if not names.pre_norm or type(model.get_submodule(names.name)).__name__ not in PRE_NORM or not is_known:
        return
    if weight is not None and all(type(model.get_submodule(c)) in (nn.Linear, ExpertLinear) for c in consumers):
        yield Fold(norm, consumers, parent, weight.numel(), readers)


def _parent_of(model: nn.Module, names: BlockNames) -> str:
    """The feed-forward network; of blocks that hold its layers themselves, the block."""
    common = names.up.rpartition(".")[0]
    return common if names.down.startswith(f"{common}.") else names.name


def _is_network(module: nn.Module) -> bool:
    return isinstance(module, ExpertFeedForward) or all(hasattr(module, f"{n}_proj") for n in ("gate", "up", "down"))


def _layers_of(network: nn.Module) -> list[str]:
    """The layers of an expert network by name: gate if it has one, up, down."""
    if not isinstance(network, ExpertFeedForward):
        return ["gate_proj", "up_proj", "down_proj"]
    return [*(["gate"] if network.gate is not None else []), "up", "down"]


def _activation(model: nn.Module) -> str | None:
    """The name of the activation in a Hugging Face model's feed-forward networks; None if it is not known."""
    config: Any = getattr(model, "config", None)
    names = (getattr(config, key, None) for key in ("activation_function", "hidden_act"))
    return next((name for name in names if isinstance(name, str)), None)
