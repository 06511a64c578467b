"""Wanda and SparseGPT on experts: each by the tokens that its router sends it, as if it were a network of its own."""

import copy
import weakref

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from core.algorithms.second_order import Factor, Unstructured, factorize, solve
from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.nn.experts.mixture import MixtureOfExperts
from core.nn.experts.packed import PackedExpertLinear
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.mixture_of_experts.glam import Glam
from core.techniques.mixture_of_experts.moe import Moe
from core.techniques.mixture_of_experts.switch import Switch
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.pruning.wanda import Wanda, keep_rows
from tests.core.fakes import context
from tests.core.techniques.pruning.families import loaded, subject_of

NAME = "blocks.1.ffn"
STEPS = {"builtin gpt": Moe(experts=4, k=2), "builtin encoder": Switch(experts=4), "builtin gpt gated": Glam(experts=4)}


def with_experts(kind: str) -> Subject:
    """A model of two blocks, the second with experts that differ and a router that chooses."""
    more = {"ffn": "swiglu"} if kind.endswith("gated") else {}
    subject = subject_of(kind.removesuffix(" gated"), depth=2, **more)
    STEPS[kind].apply(subject, context(subject))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in mixture_of(subject).parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return subject


def mixture_of(subject: Subject) -> MixtureOfExperts:
    found = subject.model.get_submodule(NAME)
    assert isinstance(found, MixtureOfExperts)
    return found


@torch.no_grad()
def own_tokens(subject: Subject, pruned: Subject) -> list[Tensor]:
    """The tokens [n, dim] of every expert: one choice after the other, from the first block as it is pruned."""
    model = copy.deepcopy(subject.model)
    model.blocks[0] = copy.deepcopy(pruned.model.blocks[0])
    mixture, seen = model.get_submodule(NAME), [[] for _ in range(4)]

    def collect(_, args, kwargs) -> None:
        x = args[0]
        mask = kwargs["mask"]
        valid = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        routing = mixture.route(x, valid, causal=kwargs["causal"])
        for row, token, choice in routing.kept.nonzero().tolist():
            seen[int(routing.experts[row, token, choice])].append(x[row, token])

    mixture.register_forward_pre_hook(collect, with_kwargs=True)
    logits_of(model, subject.task.batch(torch.arange(len(subject.task))))
    return [torch.stack(tokens) for tokens in seen]


def inputs_of_layers(subject: Subject, expert: int, tokens: Tensor) -> dict[str, Tensor]:
    """What enters each layer of one expert."""
    layers = {name: layer.linears()[expert] for name, layer in mixture_of(subject).experts.layers().items()}
    hidden = F.gelu(layers["up"](tokens))
    if "gate" in layers:
        hidden = F.silu(layers["gate"](tokens)) * layers["up"](tokens)
    return {name: hidden if name == "down" else tokens for name in layers}


@pytest.mark.parametrize("kind", STEPS)
def test_wanda_prunes_each_expert_by_the_norms_of_its_own_tokens(kind):
    subject, before = with_experts(kind), with_experts(kind)
    Wanda(sparsity=0.5).apply(subject, context(subject))
    for expert, tokens in enumerate(own_tokens(before, subject)):
        for name, inputs in inputs_of_layers(before, expert, tokens).items():
            weight = mixture_of(before).experts.layers()[name].matrices()[expert]
            expected = keep_rows(weight.abs() * inputs.norm(dim=0), 0.5)
            mask = subject.mask(f"{NAME}.experts.{name}.weight")
            assert torch.equal(mask.chunk(4)[expert], expected), (expert, name)
            pruned = mixture_of(subject).experts.layers()[name].matrices()[expert]
            assert torch.equal(pruned, weight * expected)


@pytest.mark.parametrize("kind", STEPS)
def test_sparsegpt_solves_each_expert_by_the_hessian_of_its_own_tokens(kind):
    subject, before = with_experts(kind), with_experts(kind)
    Sparsegpt(sparsity=0.5).apply(subject, context(subject))
    for expert, tokens in enumerate(own_tokens(before, subject)):
        for name, inputs in inputs_of_layers(before, expert, tokens).items():
            weight = mixture_of(before).experts.layers()[name].matrices()[expert]
            hessian = 2 / len(inputs) * inputs.T @ inputs
            expected = solve(weight.detach(), factorize(hessian), pattern=Unstructured(0.5))
            found = mixture_of(subject).experts.layers()[name].matrices()[expert]
            torch.testing.assert_close(found, expected.weight, rtol=1e-3, atol=1e-4)
    rows = {row["name"]: row for row in subject.details["layers"]}
    assert rows[f"{NAME}.experts.up"]["sparsity"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("bits", [None, 4])
def test_sparsegpt_has_the_hessian_and_the_factor_of_one_expert_at_a_time(bits, monkeypatch):
    seen, alive = weakref.WeakSet(), []

    def counted(hessian: Tensor, damping: float, **settings: bool) -> Factor:
        factor = factorize(hessian, damping, **settings)
        seen.update((hessian, factor.upper))
        alive.append(len(seen))
        return factor

    subject = with_experts("builtin gpt")
    monkeypatch.setattr("core.algorithms.second_order_layers.factorize", counted)
    Sparsegpt(sparsity=0.5, bits=bits).apply(subject, context(subject))
    assert len(alive) > 2 * 4  # both layers of four experts, and what is no expert's
    assert max(alive) <= 4  # two of each, while the next takes the place of the last one


@pytest.mark.parametrize("technique", [Wanda(sparsity=0.5), Sparsegpt(sparsity=0.5), NmPruning(score="wanda")])
def test_experts_that_no_token_reaches_go_by_magnitude_and_are_named(technique):
    subject, record = with_experts("builtin encoder"), MemoryRecord()
    with torch.no_grad():
        router = mixture_of(subject).router
        router[2] = -router[0]  # one of the two is positive, whatever the token
        router[[1, 3]] = 0
    before = mixture_of(subject).experts.up.matrices().detach().clone()
    technique.apply(subject, context(subject, record))
    said = [message for level, message in record.events if level == "warning"]
    up, down = f"{NAME}.experts.up", f"{NAME}.experts.down"
    wanted = "no calibration token reaches experts 1, 3 of {}: their inputs are weighted equally"
    assert said == [wanted.format(up), wanted.format(down)]
    kept = subject.mask(f"{up}.weight").chunk(4)[1]
    weight = before[1].abs()
    if isinstance(technique, NmPruning):
        groups = weight.view(-1, 4)
        assert torch.equal(kept.view(-1, 4), groups >= groups.topk(2, dim=1).values[:, -1:])
    elif isinstance(technique, Wanda):
        assert torch.equal(kept, weight >= weight.topk(16, dim=1).values[:, -1:])
    else:
        assert torch.equal(mixture_of(subject).experts.up.matrices()[1], before[1] * kept)  # nothing makes up for it
    assert kept.float().mean() == 0.5


def test_masks_that_experts_have_stay_and_count():
    subject = with_experts("builtin gpt")
    MagnitudePruning(sparsity=0.3).apply(subject, context(subject))
    old = subject.mask(f"{NAME}.experts.up.weight").clone()
    Wanda(sparsity=0.5).apply(subject, context(subject))
    mask = subject.mask(f"{NAME}.experts.up.weight")
    assert not (mask & ~old).any()
    assert torch.equal(mask.sum(dim=1), old.sum(dim=1).clamp(max=16))


@pytest.mark.parametrize("settings", [{"bits": 4}, {"structure": "n:m"}, {"bits": 8, "sequential": True}])
def test_pruned_and_quantized_experts_are_packed_and_reload(settings, tmp_path):
    subject = with_experts("builtin gpt")
    Sparsegpt(sparsity=0.5, **settings).apply(subject, context(subject))
    batch = subject.task.batch(torch.arange(4))
    with torch.no_grad():
        expected = logits_of(subject.model, batch)
    artifact.save(subject, tmp_path, loaded(subject))
    again = artifact.load_models(tmp_path)["main"]
    with torch.no_grad():
        torch.testing.assert_close(logits_of(again, batch), expected, rtol=1e-4, atol=1e-4)
    if "bits" in settings:
        packed = again.get_submodule(f"{NAME}.experts.up")
        assert isinstance(packed, PackedExpertLinear)
        zeros = torch.cat([layer.weight() for layer in packed.layers]) == 0
        assert zeros.float().mean() >= 0.5
