"""What pruning of blocks, units and heads does where architecture steps swapped a Transformer's parts."""

import copy

import pytest
import torch
from torch import nn

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.anatomy import anatomy
from core.nn.reversible import ReversibleStack
from core.nn.rwkv.block import RwkvBlock
from core.runtimes.decode import decoder_of
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.architecture.gmlp import Gmlp
from core.techniques.architecture.linear_attention import LinearAttentionStep
from core.techniques.architecture.mamba import MambaStep
from core.techniques.architecture.mlp_mixer import MlpMixer
from core.techniques.architecture.retnet import Retnet
from core.techniques.architecture.reversible import Reversible
from core.techniques.architecture.rwkv import Rwkv
from core.techniques.architecture.sparse_ffn import SparseFfnTechnique
from core.techniques.architecture.sparse_qkv import SparseQkv
from core.techniques.attention.bigbird import BigBird
from core.techniques.attention.block_local import BlockLocal
from core.techniques.mixture_of_experts.glam import Glam
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.mixture_of_experts.switch import Switch
from core.techniques.pruning.cofi import Cofi
from core.techniques.pruning.depth_pruning import DepthPruning, take_out_
from core.techniques.pruning.ffn_pruning import FfnPruning
from core.techniques.pruning.head_pruning import HeadPruning
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.residual_stream import Trace, block_influence
from core.techniques.pruning.slicegpt import Slicegpt
from core.techniques.pruning.width_pruning import WidthPruning
from tests.core.algorithms.structured.families import answers, images, texts, windows
from tests.core.fakes import context
from tests.core.techniques.pruning.families import kind_of, loaded, subject_of

TASKS = {"image": images, "text": windows, "padded": texts}
SPARSE = [SparseFfnTechnique(block_size=4), SparseQkv()]
CAUSAL = {
    "retnet": [Retnet()],
    "linear attention": [LinearAttentionStep()],
    "mamba": [MambaStep()],
    "mamba for attention": [MambaStep(replaces="attention")],
    "rwkv 4": [Rwkv(version=4)],
    "rwkv 6": [Rwkv()],
    "gmlp": [Gmlp()],
    "sparse ffn and qkv": SPARSE,
    "block local": [BlockLocal(block=4)],
    "reversible": [Reversible()],
    "reversible retnet": [Retnet(), Reversible()],
    "moe": [Moe(experts=4)],
    "mamba beside experts": [Moe(experts=4), MambaStep(replaces="attention")],
}
BIDIRECTIONAL = {
    "vit mixer": [MlpMixer()],
    "vit gmlp": [Gmlp()],
    "vit switch": [Switch(experts=4)],
    "encoder bigbird": [BigBird(block=2, random_blocks=1, global_tokens=2)],
    "encoder mixer": [MlpMixer()],
    "encoder glam": [Glam(experts=4)],
    "encoder reversible": [Reversible()],
}
EVERY = CAUSAL | BIDIRECTIONAL


def swapped(name: str, depth: int = 4) -> Subject:
    """A model of that many blocks whose parts these steps swapped, and whose every weight matters."""
    family = f"builtin {name.split()[0]}" if name in BIDIRECTIONAL else "builtin gpt"
    subject = subject_of(family, depth=depth, **({"kv_heads": 4} if family.endswith("gpt") else {}))
    subject.task = TASKS[kind_of(family)]()
    for step in EVERY[name]:
        step.check(subject)
        step.apply(subject, context(subject))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    subject.model.eval()
    return subject


def as_identity_(model: nn.Module, dropped: list[int]) -> None:
    """Let these blocks hand on what they get; of RWKV's first one the norm of the embeddings stays."""
    blocks = list(model.blocks.children())
    for index in dropped:
        block = blocks[index]
        if isinstance(model.blocks, ReversibleStack):
            for part in (block.attention, block.ffn):
                part.forward = lambda x, **_: torch.zeros_like(x)
        elif isinstance(block, RwkvBlock) and block.first:
            block.forward = lambda x, norm=block.norm0, **_: norm(x)
        else:
            block.forward = lambda x, **_: x


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dropped", [[0, 2], [1, 3]])
def test_blocks_taken_out_are_as_blocks_that_hand_on_what_they_get(name, dropped, tmp_path):
    subject = swapped(name)
    same = copy.deepcopy(subject.model)
    as_identity_(same, dropped)
    take_out_(subject, dropped)
    assert len(anatomy(subject.model).chain) == 2 == subject.configs["main"]["depth"]
    batch = subject.task.batch(torch.arange(4))
    with torch.no_grad():
        expected, found = logits_of(same, batch), logits_of(subject.model, batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    with torch.no_grad():
        assert torch.equal(logits_of(again.model, batch), found)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_shallower_model_decodes_what_it_gives_at_once(name):
    subject = swapped(name)
    take_out_(subject, [0, 2])
    model = subject.model.double()
    tokens = subject.task.batch(torch.arange(2))["input_ids"]
    cache = model.make_cache(tokens.shape[1])
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in tokens.split([3] + [1] * 7, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), atol=1e-6, rtol=1e-6)
    decoder = decoder_of(model)
    assert decoder is not None
    decoder.prefill({"input_ids": tokens}, 2)
    assert len(decoder.cache) == (1 if isinstance(model.blocks, ReversibleStack) else 2)


@pytest.mark.parametrize("name", EVERY)
def test_the_step_takes_out_the_blocks_of_least_influence(name):
    subject = swapped(name)
    step = DepthPruning(n_dropped=2)
    step.check(subject)
    step.apply(subject, context(subject))
    rows = subject.details["layers"]
    kept = sorted(range(4), key=lambda index: rows[index]["block influence"])[2:]
    assert [row["kept"] for row in rows] == [index in kept for index in range(4)]
    assert torch.isfinite(answers(subject)).all()


def test_influence_in_two_streams_is_that_of_their_mean():
    subject = swapped("reversible", depth=2)
    batch, blocks = subject.task.batch(torch.arange(3)), list(subject.model.blocks.children())
    trace = Trace(2, 1, last_token_only=True)
    with torch.no_grad(), trace.watching(subject.model.blocks, batch):
        logits_of(subject.model, batch)
    with torch.no_grad():
        first = second = subject.model.embedding(batch["input_ids"])
        expected, mean = [], first
        for block in blocks:
            first = first + block.attention(block.norm1(second))
            second = second + block.ffn(block.norm2(first))
            expected.append(block_influence(mean, (first + second) / 2).mean())
            mean = (first + second) / 2
    torch.testing.assert_close(torch.tensor(trace.means()[0]), torch.stack(expected))


def test_masks_of_experts_go_along_with_their_blocks():
    subject = swapped("moe")
    MagnitudePruning(sparsity=0.5).apply(subject, context(subject))
    name = "ffn.experts.up.weight"
    expected = subject.mask(f"blocks.3.{name}")
    take_out_(subject, [0, 2])
    assert subject.mask(f"blocks.1.{name}") is expected
    assert not subject.model.get_parameter(f"blocks.1.{name}")[~expected].any()


IDLE = torch.randperm(48, generator=torch.Generator().manual_seed(2))[:24]


@pytest.mark.parametrize("importance", ["first_order", "taylor"])
@pytest.mark.parametrize(
    "name", ["retnet", "mamba for attention", "reversible", "vit mixer", "moe", "encoder glam", "mamba beside experts"]
)
def test_idle_units_of_feed_forward_networks_go_whatever_mixes_the_tokens(name, importance, tmp_path):
    subject, record = swapped(name), MemoryRecord()
    feeds = anatomy(subject.model).feeds
    with torch.no_grad():
        for block in feeds.values():
            subject.model.get_parameter(f"{block.down}.weight")[:, IDLE] = 0
    expected = answers(subject)
    step = FfnPruning(pruning_ratio=0.5, importance=importance)
    step.check(subject)
    step.apply(subject, context(subject, record))
    assert {subject.model.get_submodule(block.down).in_features for block in feeds.values()} == {24}
    torch.testing.assert_close(answers(subject), expected, atol=1e-4, rtol=1e-4)
    others = [name for name in anatomy(subject.model).chain if name not in feeds]
    assert len(others) == (2 if any(word in name for word in ("moe", "glam", "experts")) else 0)
    assert any(", ".join(others) in message for _, message in record.events) == bool(others)
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    torch.testing.assert_close(answers(again), answers(subject))


@pytest.mark.parametrize("name", ["moe", "encoder glam", "vit switch", "reversible"])
def test_heads_without_output_go_whatever_the_feed_forward_networks_are(name):
    subject = swapped(name)
    known = anatomy(subject.model)
    with torch.no_grad():
        for block in known.attentions.values():
            subject.model.get_parameter(f"{block.o}.weight")[:, 8:16] = 0
    expected = answers(subject)
    step = HeadPruning(pruning_ratio=0.25, rounds=2)
    step.check(subject)
    step.apply(subject, context(subject))
    assert [subject.model.get_submodule(block.attention).heads for block in known.attentions.values()] == [3] * 4
    torch.testing.assert_close(answers(subject), expected, atol=1e-4, rtol=1e-4)


def test_gates_of_reversible_blocks_get_the_gradients_of_the_plain_computation():
    """The stack's own backward pass knows of no gates."""
    rows = {}
    for name in ("reversible", "plain"):
        subject = swapped("reversible")
        if name == "plain":
            stack = subject.model.blocks
            stack.forward = lambda x, stack=stack, **_: _plain(stack, x)
        HeadPruning(pruning_ratio=0.25, rounds=1).apply(subject, context(subject))
        rows[name] = subject.details["layers"]
    assert rows["reversible"] == rows["plain"]


def _plain(stack: ReversibleStack, x: torch.Tensor) -> torch.Tensor:
    first = second = x
    for block in stack.children():
        first = first + block.attention(block.norm1(second))
        second = second + block.ffn(block.norm2(first))
    return (first + second) / 2


def test_what_has_none_of_it_is_refused_with_the_reason():
    with pytest.raises(SpecError, match="by an earlier step: its heads are not known"):
        HeadPruning().check(swapped("retnet"))
    for name in ("mamba", "gmlp", "sparse ffn and qkv"):
        with pytest.raises(SpecError, match="by an earlier step: its feed-forward networks are not known"):
            FfnPruning().check(swapped(name))
    for step in (WidthPruning(), Slicegpt(), Cofi(teacher="stage:0")):
        with pytest.raises(SpecError, match="by an earlier step: its blocks' parts are not known"):
            step.check(swapped("moe"))
