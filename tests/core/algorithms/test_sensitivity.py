"""Estimates of the loss's increase, against losses whose curvature is known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.algorithms.sensitivity import fisher_increase, hessian_increase, mean_traces, predictions_per_example
from core.tasks.base import logits_of


class SquaredOutputs:
    """A task whose loss is half the squared output, whose Hessian by a linear layer's weight is E[x x^T]."""

    def loss(self, logits, batch):
        return 0.5 * logits.square().sum(dim=1).mean()


class Linear(nn.Module):
    def __init__(self, d, out):
        super().__init__()
        self.layer = nn.Linear(d, out, bias=False)

    def forward(self, x):
        return self.layer(x)


def test_the_trace_of_a_diagonal_hessian_is_exact_with_one_probe():
    model = Linear(4, 3)
    x = torch.diag(torch.tensor([1.0, 2, 3, 4]))  # E[x x^T] = diag(1, 4, 9, 16) / 4
    batches = [{"x": x[:2], "labels": torch.zeros(2)}, {"x": x[2:], "labels": torch.zeros(2)}]
    weights = {"layer.weight": model.layer.weight}
    found = mean_traces(model, SquaredOutputs(), batches, weights, 1, torch.Generator().manual_seed(0))
    assert found["layer.weight"] == pytest.approx((1 + 4 + 9 + 16) / 4 / 4)


def test_the_estimate_is_exact_for_a_quadratic_loss_of_equal_curvature():
    model, task = Linear(4, 3), SquaredOutputs()
    x = 2 * torch.eye(4)
    batch = {"x": x, "labels": torch.zeros(4)}
    model.layer.weight.data.zero_()  # a minimum
    trace = mean_traces(model, task, [batch], {"w": model.layer.weight}, 1, torch.Generator().manual_seed(0))["w"]
    change = torch.randn(3, 4)
    model.layer.weight.data += change
    loss = float(task.loss(logits_of(model, batch), batch).detach())
    assert hessian_increase(change, trace) == pytest.approx(loss, rel=1e-5)


def test_the_trace_of_a_network_matches_its_full_hessian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(6, 3).double()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    def loss_of(weight):
        return SquaredOutputs().loss(F.linear(torch.tanh(F.linear(x, weight, net[0].bias)), net[2].weight), {})

    model = Net()
    net[2].bias.data.zero_()
    batch = [{"x": x, "labels": torch.zeros(6)}]
    found = mean_traces(model, SquaredOutputs(), batch, {"w": net[0].weight}, 2000, torch.Generator().manual_seed(0))
    exact = torch.autograd.functional.hessian(loss_of, net[0].weight.detach()).reshape(15, 15)
    assert found["w"] == pytest.approx(float(exact.trace() / 15), rel=0.05)


def test_a_negative_trace_is_noise():
    assert hessian_increase(torch.ones(2, 2), -3.0) == 0.0
    assert hessian_increase(torch.ones(2, 2), 3.0) == 6.0


def test_the_fisher_increase_by_hand():
    change, fisher = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 0.25]])
    assert fisher_increase(change, fisher) == pytest.approx(0.75)
    assert fisher_increase(change, fisher, predictions=8) == pytest.approx(6.0)


def test_predictions_are_the_labels_that_count():
    batches = [{"labels": torch.tensor([[1, 2, -100], [3, -100, -100]])}, {"labels": torch.tensor([[4, 5, 6]])}]
    assert predictions_per_example(batches) == 2.0
    assert predictions_per_example([{"labels": torch.tensor([3, 1])}]) == 1.0
