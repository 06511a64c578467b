"""Which channels of a network move together: any order of those that are free gives the same answers."""

import pytest
import torch
from torch import nn

from core.models.channels import Network, Slot, trace_channels
from tests.core.models.channels.networks import CASES, VECTORS, Case, Net, linear, two


def randomize_(model: nn.Module) -> nn.Module:
    """Weights and statistics without symmetries, in float64."""
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    for parameter in model.parameters():
        parameter.data.sub_(0.6)
    return model.double().eval()


def permute_all_(network: Network) -> None:
    generator = torch.Generator().manual_seed(1)
    for channels in network.channels:
        order = torch.randperm(channels.size, generator=generator).roll(1)
        channels.permute_({name: [tensor] for name, tensor in network.tensors.items()}, order)


def traced(case: Case) -> tuple[Net, torch.Tensor, Network]:
    net = Net(case)
    randomize_(net)
    x = torch.randn(case.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return net, x, trace_channels(net, lambda: net(x))


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_any_order_of_free_channels_gives_the_same_answer(name):
    case = CASES[name]()
    net, x, network = traced(case)
    before, weights = net(x), {key: tensor.clone() for key, tensor in net.state_dict().items()}
    permute_all_(network)
    assert torch.allclose(net(x), before, rtol=0, atol=1e-10)
    for layer in case.free:
        weight = net.get_submodule(layer).weight
        assert not torch.equal(weight, weights[f"{layer}.weight"])
    for layer in case.frozen:
        moved = [slot for c in network.channels for slot in c.at(f"{layer}.weight", 1)]
        assert not moved


@pytest.mark.parametrize("name", CASES)
def test_as_many_channels_as_there_are_move_together_and_others_say_why_not(name):
    case = CASES[name]()
    _, _, network = traced(case)
    for layer, size in case.free.items():
        assert size in {channels.size for channels in network.channels if channels.at(f"{layer}.weight", 1)}
    for layer, word in case.frozen.items():
        assert word in network.frozen[f"{layer}.weight", 1]


def test_siblings_and_coparents_are_one_group_with_what_lies_between():
    _, _, network = traced(CASES["squeeze and excitation"]())
    (channels,) = network.channels
    slots = {(slot.name, slot.axis) for slot in channels.slots}
    assert slots == {
        *(("a.weight", 0), ("a.bias", 0), ("b.weight", 0), ("b.weight", 1), ("b.bias", 0), ("c.weight", 1)),
    }


def test_statistics_of_a_batch_norm_move_along():
    _, _, network = traced(CASES["batch norm"]())
    (channels,) = network.channels
    moving = {slot.name for slot in channels.slots}
    assert {"b.weight", "b.bias", "b.running_mean", "b.running_var"} <= moving


def test_flattened_channels_lie_apart_by_the_size_of_a_channel():
    _, _, network = traced(CASES["flattened"]())
    (channels,) = [c for c in network.channels if c.at("c.weight", 1)]
    (slot,) = channels.at("c.weight", 1)
    assert torch.equal(slot.places, torch.arange(32).view(8, 4).t())
    assert slot.fills_groups_of(4) and not slot.in_runs_of(4) and not slot.fills_groups_of(8)


def test_groups_are_filled_only_where_they_begin():
    places = torch.arange(8).view(2, 4).t()  # 4 copies of 2 channels, a channel's side by side
    assert Slot("weight", 1, places).fills_groups_of(4)
    assert not Slot("weight", 1, places + 2).fills_groups_of(4)
    assert not Slot("weight", 1, torch.arange(8).view(4, 2)).fills_groups_of(4)


def test_parts_of_a_concatenation_have_an_order_each():
    _, _, network = traced(CASES["concatenated"]())
    first, second = (c.at("c.weight", 1)[0] for c in network.channels)
    assert torch.equal(first.places, torch.arange(8)[None]) and torch.equal(second.places, torch.arange(8, 20)[None])
    assert first.in_runs_of(4) and second.in_runs_of(4) and not second.in_runs_of(3)


@torch.no_grad()
def test_shared_weights_move_once():
    def twice(net, x):
        return net.d(net.c(net.b(net.a(x))))

    case = Case(VECTORS, twice, two(linear(6, 8), linear(8, 8), b=linear(8, 8), d=linear(8, 2)), {}, {})
    case.modules["c"].weight = case.modules["b"].weight
    net, x, network = traced(case)
    before = net(x)
    permute_all_(network)
    assert network.names["b.weight"] == "c.weight" and "b.weight" not in network.tensors
    assert torch.allclose(net(x), before, rtol=0, atol=1e-10)
    (all_of_them,) = network.channels  # what b reads is what it writes
    assert len(all_of_them.at("c.weight", 0)) == len(all_of_them.at("c.weight", 1)) == 1


@torch.no_grad()
def test_parameters_that_share_part_of_their_memory_keep_their_order():
    net = Net(Case(VECTORS, lambda n, x: n.c(n.a(x)), two(linear(6, 8), linear(8, 2)), {}, {}))
    randomize_(net)
    memory = torch.randn(60, dtype=torch.float64)
    net.a.weight = nn.Parameter(memory[:48].view(8, 6))
    net.c.weight = nn.Parameter(memory[44:60].view(2, 8))
    network = trace_channels(net, lambda: net(torch.randn(VECTORS, dtype=torch.float64)))
    assert not network.channels and "memory" in network.frozen["c.weight", 1]


def test_what_a_module_keeps_outside_its_state_stays_where_it_is():
    net = Net(Case(VECTORS, lambda n, x: n.c(n.a(x) * n.scale), two(linear(6, 8), linear(8, 2)), {}, {}))
    net.register_buffer("scale", torch.rand(8), persistent=False)
    randomize_(net)
    network = trace_channels(net, lambda: net(torch.randn(VECTORS, dtype=torch.float64)))
    assert not network.channels and "outside" in network.frozen["c.weight", 1]


def test_the_fast_path_of_attention_is_as_it_was_afterwards():
    assert torch.backends.mha.get_fastpath_enabled()
    traced(CASES["attention"]())
    assert torch.backends.mha.get_fastpath_enabled()
