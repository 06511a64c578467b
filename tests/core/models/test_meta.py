import pytest
import torch
from torch import nn

from core.models.meta import assign_weights, empty_weights, tied_parameters


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.middle = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("frequency", torch.tensor([1.0, 2.0]), persistent=False)


def test_parameters_are_empty_and_buffers_real():
    state = torch.get_rng_state()
    with empty_weights():
        model = Tied()
    assert all(p.is_meta and p.requires_grad for p in model.parameters())
    assert model.frequency.tolist() == [1.0, 2.0] and model.middle.running_var.tolist() == [1.0] * 3
    assert torch.equal(torch.get_rng_state(), state)
    assert not Tied().head.weight.is_meta  # and only inside


def test_patch_is_undone_when_building_fails():
    with pytest.raises(ZeroDivisionError), empty_weights():
        1 / 0  # noqa: B018
    assert not nn.Linear(1, 1).weight.is_meta


def test_tied_parameters_are_found_by_their_memory():
    model = Tied()
    assert tied_parameters(model) == [["embedding.weight", "head.weight"]]
    model.head.weight = nn.Parameter(model.embedding.weight.detach())  # another Parameter, the same memory
    assert tied_parameters(model) == [["embedding.weight", "head.weight"]]
    model.head.weight = nn.Parameter(model.embedding.weight.detach().clone())
    assert tied_parameters(model) == []


def test_tied_parameters_are_found_on_the_meta_device():
    with torch.device("meta"):
        model = Tied()
    assert tied_parameters(model) == [["embedding.weight", "head.weight"]]


@pytest.mark.parametrize("left_out", ["embedding.weight", "head.weight", None])
def test_assigning_keeps_what_is_tied_tied(left_out):
    source = Tied()
    tensors = {name: tensor for name, tensor in source.state_dict().items() if name != left_out}
    with empty_weights():
        model = Tied()
    assign_weights(model, tensors)
    assert model.head.weight is model.embedding.weight
    assert torch.equal(model.head.weight, source.head.weight)
    assert model.head.weight.requires_grad


def test_assigning_is_strict():
    with empty_weights():
        model = Tied()
    with pytest.raises(RuntimeError, match="middle"):
        assign_weights(model, {"embedding.weight": torch.zeros(5, 3)})
    with pytest.raises(RuntimeError, match="surplus"):
        assign_weights(model, {**Tied().state_dict(), "surplus": torch.zeros(1)})
