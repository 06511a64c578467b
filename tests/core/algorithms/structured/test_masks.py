"""CoFi's parts: the hard concrete distribution, expected size, matching of layers, the Lagrangian."""

import math

import pytest
import torch

from core.algorithms.structured.hard_concrete import probability_nonzero, sample, settled, stretched
from core.algorithms.structured.lagrangian import lagrangian, ramp
from core.algorithms.structured.layer_matching import layer_loss, match, taught_layers
from core.algorithms.structured.log_alphas import LogAlphas
from core.algorithms.structured.structure import structure_of
from core.algorithms.structured.units import keep_
from tests.core.algorithms.structured.families import TRANSFORMERS, subject_of


def test_a_mask_is_stretched_and_clipped():
    log_alpha = torch.tensor([0.0, 0.0, 0.0, 1.0])
    uniform = torch.tensor([0.5, 0.999, 0.001, 0.3])
    s = 1 / (1 + math.exp(-(math.log(0.3 / 0.7) + 1) * 1.5))
    assert stretched(uniform, log_alpha).tolist() == pytest.approx([0.5, 1.0, 0.0, 1.2 * s - 0.1])


@pytest.mark.parametrize("log_alpha", [-3.0, 0.0, 2.0])
def test_the_probability_is_that_of_the_samples(log_alpha):
    torch.manual_seed(0)
    masks = sample(torch.full((200_000,), log_alpha))
    assert float((masks > 0).float().mean()) == pytest.approx(
        float(probability_nonzero(torch.tensor(log_alpha))), abs=4e-3
    )
    assert ((masks == 0) | (masks == 1)).float().mean() > 0.2


def test_settled_masks_have_as_many_zeros_as_are_expected():
    log_alpha = torch.tensor([3.0, -5.0, 0.0, -6.0, 4.0, 1.0])
    kept = round(float(probability_nonzero(log_alpha).sum()))
    masks = settled(log_alpha)
    assert kept == 4 and (masks > 0).tolist() == [True, False, True, False, True, True]
    assert float(masks[0]) == pytest.approx(1 / (1 + math.exp(-0.8 * 3 * 1.5)))
    assert int((settled(log_alpha, 3) > 0).sum()) == 3 and int((settled(log_alpha, 5) > 0).sum()) == 5
    assert int((settled(torch.full((6,), -9.0), 4) > 0).sum()) == 0


def test_gradients_reach_log_alpha():
    torch.manual_seed(0)
    log_alpha = torch.zeros(50, requires_grad=True)
    sample(log_alpha).sum().backward()
    assert float(log_alpha.grad.sum()) > 1


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("residual", [True, False])
def test_the_expected_size_is_counted_on_the_real_matrices(family, residual):
    subject = subject_of(family)
    structure = structure_of(subject.model, stream=residual)
    alphas = LogAlphas(structure, torch.device("cpu"), torch.Generator().manual_seed(0))
    heads, units = structure.heads[0].count // 2, 16
    kept = {0: (range(heads), range(units)), 1: (range(structure.heads[1].count), [])}
    with torch.no_grad():
        for own in alphas.parameters():
            own.fill_(50.0)
        alphas.heads[0][heads:] = -50
        alphas.feeds[0][units:] = -50
        alphas.feed_layers[1] = -50
        if residual:
            alphas.stream[20:] = -50

    def matrices():
        names = [name for block in structure.blocks for name in block.linears]
        return sum(subject.model.get_parameter(f"{name}.weight").numel() for name in names)

    before = matrices()
    for index, (own, feed) in kept.items():
        keep_(subject, structure.heads[index], torch.tensor(own))
        keep_(subject, structure.feeds[index], torch.tensor(list(feed), dtype=torch.long))
    if residual:
        keep_(subject, structure.stream, torch.arange(20))
    assert float(alphas.expected_sparsity().detach()) == pytest.approx(1 - matrices() / before, abs=1e-5)


def test_a_unit_is_expected_where_its_layer_and_its_channel_are():
    structure = structure_of(subject_of("vit").model, stream=True)
    alphas = LogAlphas(structure, torch.device("cpu"), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for own in alphas.parameters():
            own.fill_(50.0)
        for own in (alphas.attention_layers, alphas.feed_layers, alphas.stream, *alphas.heads, *alphas.feeds):
            own.fill_(-math.log(0.1 / 1.1) * -2 / 3)  # P = 1 / 2
    assert float(alphas.expected_sparsity().detach()) == pytest.approx(1 - 0.5**3, abs=1e-5)


def test_layers_are_matched_in_order_to_the_nearest_that_lives():
    distances = torch.tensor([[3.0, 1.0, 2.0, 0.5], [1.0, 0.2, 5.0, 0.3], [9.0, 8.0, 1.0, 2.0]])
    everyone = [True] * 4
    assert match(distances, everyone) == [0, 1, 2]
    assert match(distances, [True, True, False, True]) == [0, 1, 3]
    assert match(distances, [False, True, False, False]) == [1, 1, 1]
    assert match(distances, [False] * 4) == [3, 3, 3]
    assert taught_layers(12) == [2, 5, 8, 11] and taught_layers(2) == [0, 1] and taught_layers(6) == [1, 2, 4, 5]


def test_the_layers_loss_is_of_the_matched_pairs_and_of_tokens_that_count():
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(2, 3, 4, generator=generator) for _ in range(3)]
    transform = torch.randn(5, 4, generator=generator)
    teacher = [student[0] @ transform.t() + 0.1, student[2] @ transform.t() - 0.2]
    assert float(layer_loss(student, teacher, transform, [True] * 3)) == pytest.approx(0.01 + 0.04, rel=1e-4)
    tokens = torch.tensor([[True, True, False], [True, False, False]])
    teacher[0][~tokens] += 100
    assert float(layer_loss(student, teacher, transform, [True] * 3, tokens)) == pytest.approx(0.05, rel=1e-4)


def test_the_multipliers_climb_where_too_much_is_left():
    multipliers = torch.tensor([0.5, 2.0], requires_grad=True)
    sparsity = torch.tensor(0.3, requires_grad=True)
    loss = lagrangian(sparsity, 0.5, multipliers)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5 * -0.2 + 2 * 0.04)
    assert multipliers.grad.tolist() == pytest.approx([-0.2, 0.04])
    assert float(sparsity.grad) == pytest.approx(0.5 + 2 * 2 * -0.2)


def test_the_target_rises_linearly():
    assert [ramp(p, 0.1, 0.2, 0.8) for p in (0.0, 0.1, 0.2, 0.3, 1.0)] == pytest.approx([0, 0, 0.4, 0.8, 0.8])
    assert ramp(0.2, 0.1, 0.0, 0.8) == 0.8
