"""What every mixture owes: a loop over tokens agrees with it, experts can change places, padding is not there."""

import copy

import pytest
import torch

from core.nn.experts.balance import load_balancing_loss, probability_in_top_k, squared_variation
from core.nn.experts.mixture import DROPPED, ENTROPY, LOAD
from core.nn.experts.noisy_top_k import IMPORTANCE, NoisyTopKExperts
from core.nn.experts.noisy_top_k import LOAD as LOAD_LOSS
from core.nn.experts.router import BALANCE
from core.nn.experts.switch import SwitchExperts
from core.nn.experts.top2 import Top2Experts
from tests.core.nn.experts import oracles

FORMS = {
    "mlp": {"dim": 6, "hidden": 10, "activation": "gelu", "gated": False, "bias": True},
    "swiglu": {"dim": 6, "hidden": 10, "activation": "silu", "gated": True, "bias": False},
}
LIMITS = {"capacity_factor": 1.25, "eval_capacity_factor": 1.25, "balance_weight": 0.01}
NO_LIMITS = LIMITS | {"capacity_factor": None, "eval_capacity_factor": None}


def drawn(cls, form="mlp", n_experts=5, **settings):
    mixture = cls(n_experts, **FORMS[form], **settings).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return mixture.eval()


def make(kind, form="mlp", **more):
    if kind == "noisy":
        return drawn(NoisyTopKExperts, form, choices=2, **more)
    return drawn(SwitchExperts if kind == "switch" else Top2Experts, form, **(NO_LIMITS | more))


def tokens(batch=2, length=32, seed=1):
    return torch.randn(batch, length, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


KINDS = ("noisy", "switch", "top2")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [None, 1.25])
@pytest.mark.parametrize("kind", ["switch", "top2"])
def test_a_loop_over_tokens_agrees_forward_and_backward(kind, limit, form):
    mixture = make(kind, form, eval_capacity_factor=limit)
    x = tokens()
    places = None if limit is None else int(32 / 5 * limit)
    oracle = oracles.switch if kind == "switch" else oracles.top2
    rows = []
    for sequence in x:
        p = (sequence @ mixture.router.T).softmax(-1)
        rows.append(oracles.mixed(mixture.experts, sequence, oracle(p, places)))
    expected, weights = torch.stack(rows), torch.randn(x.shape, dtype=x.dtype)
    torch.testing.assert_close(mixture(x), expected)
    parameters = list(mixture.parameters())
    gradients = torch.autograd.grad((expected * weights).sum(), parameters)
    for found, right in zip(torch.autograd.grad((mixture(x) * weights).sum(), parameters), gradients, strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_weighted_sum_over_all_experts(kind):
    """Without limits it is the dense sum under gates of which all but k are zero: by autograd, for every parameter."""
    mixture, x = make(kind), tokens()
    x.requires_grad_()
    logits = x @ mixture.router.T
    k = mixture.choices
    largest, chosen = logits.topk(k, dim=-1)
    gates = largest.softmax(-1) if kind != "switch" else logits.softmax(-1).gather(-1, chosen)
    dense = torch.zeros_like(logits).scatter(-1, chosen, gates)
    layers = mixture.experts.up, mixture.experts.down
    up, down = (layer.weight.view(5, layer.out_features, -1) for layer in layers)
    hidden = torch.einsum("btd,ehd->bteh", x, up) + layers[0].bias.view(5, -1)
    out = torch.einsum("bteh,edh->bted", torch.nn.functional.gelu(hidden), down) + layers[1].bias.view(5, -1)
    expected = (dense[..., None] * out).sum(2)
    torch.testing.assert_close(mixture(x), expected)
    weights = torch.randn_like(expected)
    wanted = [x, *(p for n, p in mixture.named_parameters() if n != "noise_router")]
    expected = torch.autograd.grad((expected * weights).sum(), wanted)
    for found, right in zip(torch.autograd.grad((mixture(x) * weights).sum(), wanted), expected, strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("kind", KINDS)
def test_experts_that_change_places_with_their_router_rows_change_nothing(kind):
    mixture, x = make(kind), tokens()
    other, order = copy.deepcopy(mixture), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(parameter.view(5, -1, *parameter.shape[1:])[order].reshape(parameter.shape))
    torch.testing.assert_close(other(x), mixture(x))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_gives_zero_and_changes_no_token_no_loss_and_no_curve(kind):
    mixture = make(kind, **({} if kind == "noisy" else {"capacity_factor": 1.0, "group": "sequence"})).train()
    x, mask = tokens(), torch.ones(2, 32, dtype=torch.bool)
    mask[1, 20:] = False
    results = []
    for filling in (1.0, -7.0):
        torch.manual_seed(3)
        results.append((mixture(torch.where(mask[..., None], x, filling), mask=mask), *_report(mixture)))
    (first, losses, curves), (second, other_losses, other_curves) = results
    assert not first[~mask].any() and torch.equal(first, second)
    assert losses == pytest.approx(other_losses) and curves == pytest.approx(other_curves)


@pytest.mark.parametrize("kind", ["switch", "top2"])
def test_padded_tokens_count_neither_for_the_places_nor_for_the_balance(kind):
    mixture = make(kind, capacity_factor=1.0, group="sequence").train()
    x = tokens()
    mask = torch.ones(2, 32, dtype=torch.bool)
    mask[1, 20:] = False
    both, losses, _ = mixture(x, mask=mask), *_report(mixture)
    alone = [mixture(x[:1]), _report(mixture)[0], mixture(x[1:, :20]), _report(mixture)[0]]
    torch.testing.assert_close(both[0], alone[0][0])
    torch.testing.assert_close(both[1, :20], alone[2][0])
    assert losses[BALANCE] == pytest.approx((alone[1][BALANCE] + alone[3][BALANCE]) / 2)  # the mean over groups


def _report(mixture):
    curves = mixture.observed()
    return {name: float(loss.detach()) for name, loss in mixture.aux_losses().items()}, curves


def test_a_batch_is_one_group_in_training_and_every_sequence_one_in_evaluation():
    mixture = make("switch", capacity_factor=1.0, eval_capacity_factor=1.0)
    x = tokens(batch=4)
    alone = torch.cat([mixture(row[None]) for row in x])
    torch.testing.assert_close(mixture(x), alone)
    mixture.train()
    together = mixture(x.flatten(0, 1)[None])[0]
    torch.testing.assert_close(mixture(x).flatten(0, 1), together)
    assert not torch.allclose(mixture(x), alone)


def test_the_balance_counts_choices_before_any_is_dropped_and_first_ones_only():
    for kind in ("switch", "top2"):
        mixture, x = make(kind, capacity_factor=0.1).train(), tokens(length=200)
        mixture(x)
        p = (x @ mixture.router.T).softmax(-1).flatten(0, 1)
        shares = torch.bincount(p.argmax(-1), minlength=5) / len(p)
        losses, curves = _report(mixture)
        assert curves[DROPPED] > 50
        assert losses[BALANCE] == pytest.approx(0.01 * load_balancing_loss(shares, p.mean(0)).item())


def test_what_is_dropped_gives_zero_and_the_other_choice_does_not_make_up_for_it():
    mixture, x = make("top2", eval_capacity_factor=0.5), tokens(length=64)
    routing = mixture.route(x, torch.ones(2, 64, dtype=torch.bool))
    weights = (routing.gates * routing.kept).sum(-1).detach()
    assert weights.max() <= 1 + 1e-9
    assert (weights == 0).any() and ((weights > 0) & (weights < 0.999)).any()
    assert not mixture(x)[weights == 0].any()


def test_importance_and_load_by_their_formulas():
    mixture, x = make("noisy", importance_weight=0.3, load_weight=0.2).train(), tokens()
    torch.manual_seed(5)
    mixture(x)
    torch.manual_seed(5)
    clean = x @ mixture.router.T
    sigma = torch.nn.functional.softplus(x @ mixture.noise_router.T) + 0.01
    noisy = clean + torch.randn_like(clean) * sigma
    largest, chosen = noisy.topk(2, dim=-1)
    importance = torch.zeros_like(clean).scatter(-1, chosen, largest.softmax(-1)).sum((0, 1))
    load = probability_in_top_k(clean, noisy, sigma, 2).sum((0, 1))
    losses = {name: float(loss.detach()) for name, loss in mixture.aux_losses().items()}
    assert losses[IMPORTANCE] == pytest.approx(0.3 * squared_variation(importance).item())
    assert losses[LOAD_LOSS] == pytest.approx(0.2 * squared_variation(load).item())
    assert mixture.aux_losses() == {}


def test_noise_is_for_training_only():
    mixture, x = make("noisy"), tokens()
    assert torch.equal(mixture(x), mixture(x))
    mixture.train()
    assert not torch.allclose(mixture(x), mixture(x))


def test_jitter_moves_the_router_alone_and_only_in_training():
    mixture, x = make("switch", jitter=0.2), tokens()
    assert torch.equal(mixture(x), mixture(x))
    mixture.train()
    first, second = mixture.route(x, torch.ones(2, 32).bool()), mixture.route(x, torch.ones(2, 32).bool())
    assert not torch.equal(first.gates, second.gates)
    ratio = mixture._jittered(x) / x
    assert 0.8 <= float(ratio.min()) < 0.85 and 1.15 < float(ratio.max()) <= 1.2


def test_curves_by_hand():
    mixture = make("switch", capacity_factor=1.0).train()
    with torch.no_grad():
        mixture.router.zero_()
        mixture.router[2, 0] = 100.0
    x = torch.ones(1, 40, 6, dtype=torch.float64)
    mixture(x)  # all 40 want expert 2, which has int(40 / 5) = 8 places
    curves = mixture.observed()
    assert curves[LOAD] == pytest.approx(5.0) and curves[DROPPED] == pytest.approx(80.0)
    assert curves[ENTROPY] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_router_decides_in_float32_whatever_the_precision_around_it(kind):
    mixture, x = make(kind).float(), tokens().float()
    valid = torch.ones(2, 32, dtype=torch.bool)
    exact = mixture.route(x, valid)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixture.route(x, valid).gates, exact.gates)
        assert mixture(x).dtype == torch.bfloat16
    half = mixture.bfloat16().route(x.bfloat16(), valid)
    assert half.gates.dtype == torch.float32
    assert mixture(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_can_be_copied_right_after_a_training_batch(kind):
    mixture = make(kind).train()
    mixture(tokens())
    copy.deepcopy(mixture)


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_token_meets_is_counted(kind):
    mixture = make(kind)
    of_one = 6 * 10 * 2 + 10 + 6
    assert sum(p.numel() for p in mixture.experts.parameters()) == 5 * of_one
    assert mixture.inactive_parameters() == (5 - mixture.choices) * of_one
    assert mixture.macs(torch.Size((2, 32, 6))) == 64 * (6 * 5 + mixture.choices * 6 * 10 * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_make_an_equal_module(kind):
    mixture, x = make(kind), tokens()
    again = type(mixture)(**mixture.arguments()).double().eval()
    again.load_state_dict(mixture.state_dict())
    assert torch.equal(again(x), mixture(x))
