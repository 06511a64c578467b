"""What all three steps owe: which networks they swap, what of a trained one stays, and what later steps make of it."""

import pytest
import torch
from torch import nn

from core import models, tasks
from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure import compute
from core.models.resnet import Resnet
from core.nn.experts.linear import ExpertLinear
from core.nn.experts.packed import PackedExpertLinear, SparseExpertLinear
from core.nn.ffn.gated import GatedFfn
from core.nn.ffn.mlp import Mlp
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.techniques.architecture.reversible import Reversible
from core.techniques.low_rank.svd import Svd
from core.techniques.mixture_of_experts.glam import Glam
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.mixture_of_experts.switch import Switch
from core.techniques.pruning.channel_permutation import ChannelPermutation
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.pruning.token_merging import TokenMerging
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.fakes import context
from tests.core.techniques.mixture_of_experts.subjects import STEPS, applied, gpt, mixtures, tokens


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(("every", "swapped"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2]), (4, [3])])
def test_the_last_of_every_so_many_is_swapped(name, every, swapped):
    subject = applied(name, every=every)
    assert list(mixtures(subject)) == [f"blocks.{i}.ffn" for i in swapped]
    assert [row["name"] for row in subject.details["layers"]] == [f"blocks.{i}.ffn" for i in swapped]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_a_trained_network_becomes_every_experts(name, ffn):
    subject = gpt(ffn, trained=True)
    before = {n: p.clone() for n, p in subject.model.blocks[1].ffn.named_parameters()}
    applied(name, subject)
    experts = subject.model.blocks[1].ffn.experts
    assert {n for n, _ in experts.named_parameters()} == before.keys()
    for key, parameter in experts.named_parameters():
        for copied in parameter.chunk(4):
            assert torch.equal(copied, before[key])
    assert type(subject.model.blocks[0].ffn) is {"mlp": Mlp, "swiglu": GatedFfn}[ffn]


@pytest.mark.parametrize("name", ["moe", "glam"])
def test_weights_that_add_up_to_one_begin_as_the_trained_model(name):
    subject, x = gpt(trained=True), tokens()
    before = subject.model(x)
    applied(name, subject, **({"eval_capacity_factor": None} if name == "glam" else {}))
    torch.testing.assert_close(subject.model(x), before)


@pytest.mark.parametrize("name", STEPS)
def test_masks_of_the_network_hold_for_its_copies(name):
    subject = gpt(trained=True)
    MagnitudePruning(sparsity=0.75).apply(subject, context(subject))
    mask = subject.mask("blocks.1.ffn.up.weight")
    applied(name, subject)
    assert torch.equal(subject.mask("blocks.1.ffn.experts.up.weight"), mask.repeat(4, 1))
    assert subject.mask("blocks.0.ffn.up.weight") is not None


@pytest.mark.parametrize("name", STEPS)
def test_fresh_experts_differ_and_follow_from_the_seed(name):
    first, second = (mixtures(applied(name))["blocks.1.ffn"].state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    experts = first["experts.up.weight"].chunk(4)
    assert not torch.equal(experts[0], experts[1])


@pytest.mark.parametrize("name", STEPS)
def test_everything_is_counted_and_what_a_token_meets_apart(name):
    subject = applied(name)
    counted = compute.count(subject.model, {"input_ids": tokens(batch=1)}, per_token=True)
    assert counted.parameters == sum(p.numel() for p in subject.model.parameters())
    inactive = sum(m.inactive_parameters() for m in mixtures(subject).values())
    assert counted.active_parameters == counted.parameters - inactive
    more = compute.count(applied(name, experts=8).model, {"input_ids": tokens(batch=1)}, per_token=True)
    assert more.parameters > 1.4 * counted.parameters
    assert more.macs - counted.macs == 2 * 4 * 16  # two routers of four more rows
    dense = compute.count(gpt().model, {"input_ids": tokens(batch=1)}, per_token=True).macs
    assert counted.macs - dense == pytest.approx(
        (2 * 4 * 16) + (0 if name == "switch" else 2 * 2 * 16 * 48), abs=64 * 16
    )


LATER = {"rtn": Rtn(bits=8), "group": Rtn(bits=4, granularity="group", group_size=8), "dynamic_int8": DynamicInt8()}


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("name", STEPS)
def test_experts_are_rounded_like_any_layer(name, later):
    subject = applied(name)
    subject.model.float()
    x = tokens()
    before = subject.model(x)
    LATER[later].check(subject)
    LATER[later].apply(subject, context(subject))
    packed = [m for m in subject.model.modules() if isinstance(m, PackedExpertLinear)]
    assert len(packed) == 2 * (3 if name == "glam" else 2)
    rows = {row["name"]: row for row in subject.details["layers"]}
    assert 0 < rows["blocks.1.ffn.experts.up"]["relative_error"] < (0.02 if later != "group" else 0.2)
    error = (subject.model(x) - before).abs().mean() / before.abs().mean()  # a token may change its expert
    assert error < (0.03 if later != "group" else 0.3)
    counted = compute.count(subject.model, {"input_ids": x[:1]}, per_token=True)
    assert counted.bits < 12  # embedding and head are left


@pytest.mark.parametrize("later", [NmPruning(), MagnitudePruning(sparsity=0.9)])
@pytest.mark.parametrize("name", STEPS)
def test_experts_are_pruned_like_any_layer_and_shipped_without_their_zeros(name, later):
    subject = applied(name)
    later.apply(subject, context(subject))
    x = tokens()
    expected = subject.model(x)
    share = 0.5 if isinstance(later, NmPruning) else 0.1
    assert subject.mask("blocks.3.ffn.experts.down.weight").double().mean() == pytest.approx(share, abs=0.01)
    deployed = artifact.deploy(subject)["main"]
    kinds = {type(m) for m in deployed.modules()}
    assert SparseExpertLinear in kinds and ExpertLinear not in kinds
    torch.testing.assert_close(deployed(x), expected)
    subject.model.float()
    Rtn().apply(subject, context(subject))
    layer = subject.model.get_submodule("blocks.3.ffn.experts.down.layers.2")
    assert (layer.weight() != 0).double().mean() <= share + 0.1


@pytest.mark.parametrize("name", STEPS)
def test_casting_leaves_the_router_its_float32(name):
    subject = applied(name)
    Cast().apply(subject, context(subject))
    mixture = mixtures(subject)["blocks.1.ffn"]
    x = torch.randn(1, 8, 16).bfloat16()
    assert mixture.experts.up.weight.dtype == torch.bfloat16
    assert mixture.route(x, torch.ones(1, 8, dtype=torch.bool)).gates.dtype == torch.float32
    assert torch.isfinite(subject.model(tokens())).all()


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("trained", [False, True])
def test_generation_with_a_cache_is_the_whole_forward_pass(name, trained):
    """Where no token is dropped: places are counted over the tokens of one call."""
    subject = applied(name, gpt(trained=trained), **({} if name == "moe" else {"eval_capacity_factor": None}))
    model, x = subject.model, tokens()
    with torch.no_grad():
        whole = model(x)
        cache = model.make_cache(24)
        steps = [model(x[:, :10], cache=cache), *(model(x[:, t : t + 1], cache=cache) for t in range(10, 24))]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


def small_vit():
    task = tasks.load(TaskSpec.model_validate({"source": "builtin:digits"}))
    spec = ModelSpec.model_validate({"source": "builtin:vit", "dim": 16, "depth": 2, "heads": 2})
    task.prepare(models.describe(spec, task).input_format)
    loaded = models.load(spec, task, torch.Generator().manual_seed(0))
    return Subject({"main": loaded.module}, task, {"main": loaded.config})


def test_channels_of_experts_are_permuted_together_and_every_expert_computes_the_same():
    subject = applied("switch", small_vit(), eval_capacity_factor=None)
    ffn, x = subject.model.blocks[1].ffn, torch.randn(6, 16)
    with torch.no_grad():
        ffn.router.zero_()  # every token goes to the first expert: no other is seen

    def outputs():
        layers = zip(ffn.experts.up.linears(), ffn.experts.down.linears(), strict=True)
        return torch.stack([down(nn.functional.gelu(up(x))) for up, down in layers])

    before, weight = outputs(), ffn.experts.down.weight.clone()
    ChannelPermutation(strategy="greedy_swap", escapes=0).apply(subject, context(subject))
    assert not torch.equal(ffn.experts.down.weight, weight)
    torch.testing.assert_close(outputs(), before)


def test_refusals_name_the_field_and_the_remedy():
    subject = gpt()
    with pytest.raises(SpecError, match="experts = 2: must exceed the 2 experts per token"):
        Moe(experts=2, k=2).check(subject)
    with pytest.raises(SpecError, match="every = 5: skips all 4 feed-forward networks"):
        Switch(every=5).check(subject)
    with pytest.raises(SpecError, match=r"expert_width = 0\.5: must be 1 in trained models"):
        Glam(expert_width=0.5).check(gpt(trained=True))
    subject.models["main"] = Resnet(depth=8, width=4, image_size=(8, 8), channels=1, n_classes=10)
    with pytest.raises(SpecError, match="is not a built-in Transformer"):
        Switch().check(subject)


def test_factored_layers_are_refused():
    subject = gpt()
    subject.model.float()
    Svd(rank=2).apply(subject, context(subject))
    with pytest.raises(SpecError, match="is a LowRankLinear, from which experts cannot be created"):
        Switch().check(subject)


def test_networks_without_hidden_units_are_refused():
    subject = gpt()
    subject.model.blocks[3].ffn.up.out_features = 0
    with pytest.raises(SpecError, match=r"'blocks\.3\.ffn': has no hidden units left"):
        Switch().check(subject)


def test_blocks_that_tell_no_padding_or_carry_no_loss_are_refused():
    merged = small_vit()
    TokenMerging().apply(merged, context(merged))
    with pytest.raises(SpecError, match="does not pass it the padding mask"):
        Switch().check(merged)
    two_streams = gpt()
    two_streams.model.float()
    Reversible().apply(two_streams, context(two_streams))
    with pytest.raises(SpecError, match="is reversible and cannot backpropagate a router's loss"):
        Switch().check(two_streams)


def test_experts_are_made_once():
    subject = applied("switch", every=1)
    with pytest.raises(SpecError, match="no dense feed-forward network"):
        Switch().check(subject)


def test_labels_tell_how_many_of_how_many():
    assert [Moe(k=4).label(), Switch(experts=32).label(), Glam().label()] == ["4 of 8", "1 of 32", "2 of 8"]


class Sequences:
    """Text to train on: the next token follows from the last."""

    def __len__(self):
        return 64

    def batch(self, indices):
        start = indices % 40
        ids = (start[:, None] + 3 * torch.arange(24)) % 40
        return {"input_ids": ids, "labels": ids}


class Counting:
    """A task of such texts."""

    def __init__(self, task):
        self.__dict__.update(task.__dict__)

    def split(self, name):
        return Sequences()

    def loss(self, logits, batch):
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())


@pytest.mark.parametrize(("name", "precision"), [("moe", "float32"), ("switch", "bfloat16"), ("glam", "float32")])
def test_training_learns_and_draws_its_curves(name, precision):
    subject = gpt(depth=2)
    subject.model.float()
    subject.task = Counting(subject.task)
    applied(name, subject)
    record = MemoryRecord()
    train = Train(steps=40, batch_size=16, learning_rate=0.01, evaluations=0, precision=precision)
    train.apply(subject, context(subject, record))
    curves = {key.partition("/")[2] or key: values for key, values in record.curves.items()}
    assert curves["loss"][-1][1] < 0.5 * curves["loss"][0][1]
    balance = {"importance loss", "load loss"} if name == "moe" else {"load balancing loss"}
    seen = {"busiest expert (times the mean)", "dropped choices (%)", "router entropy (% of uniform)"}
    assert balance | seen <= curves.keys()
    assert all(0 <= value <= 100 for _, value in curves["dropped choices (%)"])
