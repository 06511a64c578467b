"""Top-KAST: the golden step, set C bitwise frozen, and a sparse backward pass that trains as the dense one does."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from core.algorithms.masks import prunable_weights
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.models.resnet import Resnet
from core.subject import Subject
from core.technique import Update
from core.techniques.sparse_training.top_kast import TopKast, choose_sets
from core.techniques.sparse_training.top_kast_layers import exploration_gradient
from core.techniques.sparse_training.top_kast_sparse_backward import SparseBackward
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import PlaneTask, context, taken_up
from tests.core.training.test_loop import plan

THETA = [0.9, -0.7, 0.5, -0.3, 0.2, 0.05, -0.4, 0.1, 0.6, -0.15]
AFTER = [0.9991, -0.62152, 0.55306, -0.3, 0.2, 0.05, -0.43133, 0.1, 0.51922, -0.15]
BACKWARDS = ("dense", "sparse")


class ThreeLayers(nn.Module):
    """Two layers to train sparsely before a head; by default in double precision."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.middle = nn.Linear(16, 12)
        self.head = nn.Linear(12, 2)
        self.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.middle(F.relu(self.up(x.to(self.dtype))))))


def three_layers(seed: int = 0, dtype: torch.dtype = torch.float64) -> Subject:
    torch.manual_seed(seed)
    return Subject({"main": ThreeLayers(dtype)}, PlaneTask(), {"main": {}})


def resnet() -> Subject:
    model = Resnet(depth=8, width=4, image_size=(8, 8), channels=1, n_classes=2)
    return Subject({"main": model}, PlaneTask(), {"main": {}})


def one_layer() -> Subject:
    model = nn.Sequential(nn.Linear(10, 1, bias=False))
    model[0].weight.data = torch.tensor([THETA])
    return Subject({"main": model}, PlaneTask(), {"main": {}})


@pytest.mark.parametrize("backward", BACKWARDS)
def test_golden_step(backward):
    subject, method = one_layer(), TopKast(exploration_strength=0.01, backward=backward)
    method.begin(subject, context(subject))
    layer = method._layers["0.weight"]
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    assert layer.forward_set()[0].nonzero().flatten().tolist() == [0, 1]
    subject.model(torch.linspace(-1, 1, 10)).sum().backward()
    update = Update(0, 1, optimizer, 0.1)
    method.before_optimizer(update)
    optimizer.step()
    torch.testing.assert_close(layer.weight_of_all(), torch.tensor([AFTER]), atol=5e-6, rtol=0)  # five digits are given


def test_the_exploration_loss_is_squared_and_divides_by_the_forward_density():
    weight = torch.tensor(THETA, dtype=torch.float64, requires_grad=True)
    forward, backward = choose_sets({"w": weight.detach()}, 0.2, 0.3)["w"]
    only_backward = backward & ~forward
    loss = 0.01 / 2 * (weight[forward].square().sum() + weight[only_backward].square().sum() / 0.2)
    loss.backward()
    given = exploration_gradient(weight.detach(), forward, 0.01, 0.2) * backward
    torch.testing.assert_close(given, weight.grad)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("extra", [0.0, 0.1, 0.5])
def test_sets_have_exact_sizes_and_a_lies_in_b_even_where_weights_tie(density, extra):
    weight = torch.randint(0, 3, (7, 9), generator=torch.Generator().manual_seed(0)).float()
    forward, backward = choose_sets({"w": weight}, density, extra)["w"]
    assert int(forward.sum()) == round(density * 63)
    assert int(backward.sum()) == round((density + extra) * 63)
    assert not (forward & ~backward).any()
    assert weight[forward].min() >= weight[~forward].max()


def test_all_layers_compete_under_a_global_scope():
    small, large = torch.full((2, 5), 0.1), torch.full((3, 5), -1.0)
    sets = choose_sets({"small": small, "large": large}, 0.4, 0.2)
    assert int(sets["small"][0].sum()) == 0 and int(sets["large"][0].sum()) == 10
    assert sets["large"][1].all() and not sets["small"][1].any()


@pytest.mark.parametrize("backward", BACKWARDS)
def test_activations_gradients_see_the_weights_of_a_alone(backward):
    subject, method = three_layers(), TopKast(backward=backward)
    dense = subject.model.up.weight.detach().clone()
    method.begin(subject, context(subject))
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    subject.model.up(x).sum().backward()
    weight = dense * method._layers["up.weight"].forward_set()
    torch.testing.assert_close(x.grad, weight.sum(0).expand_as(x))


@pytest.mark.parametrize("backward", BACKWARDS)
@pytest.mark.parametrize("settings", [{"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adamw"}])
def test_what_is_outside_b_stays_to_the_byte(backward, settings):
    subject = three_layers()
    method = TopKast(density=0.3, extra_density=0.2, update_every=1, exploration_strength=0.05, backward=backward)
    course = plan(steps=25, learning_rate=0.05, weight_decay=0.1, clip_norm=0.5, **settings)
    run = Training(subject, context(subject), course, [method])
    n_left = 0
    for index in range(25):
        run.index = index
        before, outside = {}, {}
        for name, layer in method._layers.items():
            before[name] = layer.weight_of_all().clone()
            outside[name] = ~choose_sets({name: before[name]}, 0.3, 0.2)[name][1]
        run._update()
        for name, layer in method._layers.items():
            after, kept = layer.weight_of_all(), outside[name]
            assert after[kept].numpy().tobytes() == before[name][kept].numpy().tobytes()
            assert (after[~kept] != before[name][~kept]).any()
            n_left += int((~choose_sets({name: after}, 0.3, 0.2)[name][1] & ~kept).sum())
    assert n_left > 10  # weights with momentum left B and were watched


@pytest.mark.parametrize("backward", BACKWARDS)
def test_without_exploration_a_stays_while_no_weight_of_it_falls_below_one_of_c(backward):
    subject, method = three_layers(), TopKast(density=0.3, extra_density=0.0, update_every=1, backward=backward)
    course = plan(steps=5, learning_rate=1e-4, weight_decay=0.1, optimizer="sgd")
    run = Training(subject, context(subject), course, [method])
    before = {name: (layer.forward_set(), layer.weight_of_all().clone()) for name, layer in method._layers.items()}
    for index in range(5):
        run.index = index
        run._update()
    for name, layer in method._layers.items():
        active, weight = before[name]
        assert torch.equal(layer.forward_set(), active)
        assert torch.equal(layer.weight_of_all() != weight, active)  # all of A moved, nothing else


def test_the_optimizer_forgets_what_left_b():
    subject, method = three_layers(), TopKast(density=0.3, extra_density=0.2, update_every=1)
    run = Training(subject, context(subject), plan(steps=20, learning_rate=0.05), [method])
    for index in range(20):
        run.index = index
        run._update()
        for layer in method._layers.values():
            state, outside = run.optimizer.state[layer.trained], ~layer._sets.backward_set
            assert (state["exp_avg"][outside] == 0).all() and (state["exp_avg_sq"][outside] == 0).all()


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [("adamw", {}), ("sgd", {"update_every": 7}), ("sgd", {"scope": "global"}), ("adamw", {"exploration_stop": 0.5})],
)
def test_the_sparse_backward_trains_as_the_dense_one(optimizer, settings):
    dense, sparse = three_layers(), three_layers()
    for subject, backward in ((dense, "dense"), (sparse, "sparse")):
        method = {
            "top_kast": {"density": 0.3, "extra_density": 0.3, "update_every": 1, "backward": backward} | settings
        }
        course = {"steps": 25, "learning_rate": 0.02, "optimizer": optimizer, "evaluations": 2, "clip_norm": 0.3}
        Train(**course, methods=[method]).apply(subject, context(subject))
    for name, weight in dense.model.state_dict().items():
        torch.testing.assert_close(sparse.model.state_dict()[name], weight, atol=1e-10, rtol=1e-8)
    assert torch.equal(dense.mask("middle.weight"), sparse.mask("middle.weight"))


def test_the_sparse_backward_holds_gradients_and_state_of_b_alone():
    subject = three_layers()
    method = TopKast(density=0.1, extra_density=0.2, exploration_stop=0.5, backward="sparse")
    run = Training(subject, context(subject), plan(steps=4), [method])
    for index, share in enumerate([0.3, 0.3, 0.1, 0.1]):
        run.index = index
        run._update()
        if index == 1:
            continue  # the sets changed after this update: there is no gradient of the new ones
        for layer, n in ((subject.model.up, 128), (subject.model.middle, 192)):
            assert isinstance(layer, SparseBackward)
            held = [layer.values, layer.values.grad, *run.optimizer.state[layer.values].values()]
            assert sorted({t.numel() for t in held}) == [1, round(share * n)]
            assert layer.values.numel() + layer.rest.numel() == n


def test_gradients_of_b_are_those_of_the_dense_product():
    torch.manual_seed(0)
    linear = nn.Linear(40, 30).double()
    forward, backward = choose_sets({"w": linear.weight.detach()}, 0.2, 0.3)["w"]
    layer = SparseBackward(linear, forward, backward)
    x = torch.randn(1200, 40, dtype=torch.float64)  # more rows than are taken at once
    gradient = torch.randn(1200, 30, dtype=torch.float64)
    torch.testing.assert_close(layer.sampled_product(gradient, x), (gradient.t() @ x)[backward])


def test_a_gradient_of_the_sparse_gradient_is_refused_not_wrong():
    every = torch.ones(5, 8, dtype=torch.bool)
    layer = SparseBackward(nn.Linear(8, 5), every, every)
    x = torch.randn(3, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_with_all_weights_in_b_and_no_penalty_the_gradient_is_dense():
    subject, method = three_layers(), TopKast(extra_density=0.8, exploration_strength=0)
    weight = subject.model.up.weight.detach().clone()
    method.begin(subject, context(subject))
    x = torch.randn(5, 8, dtype=torch.float64)
    subject.model.up(x).square().sum().backward()
    masked = (weight * method._layers["up.weight"].forward_set()).requires_grad_()
    F.linear(x, masked, subject.model.up.bias).square().sum().backward()
    assert torch.equal(method._layers["up.weight"].trained.grad, masked.grad)


@pytest.mark.parametrize("backward", BACKWARDS)
def test_a_training_leaves_plain_weights_of_a_under_its_mask(backward):
    subject, record = three_layers(), MemoryRecord()
    subject.constrain("up.weight", mask=torch.eye(16, 8, dtype=torch.bool))
    method = {"top_kast": {"density": 0.25, "extra_density": 0.25, "update_every": 4, "backward": backward}}
    Train(steps=40, learning_rate=0.05, methods=[method]).apply(subject, context(subject, record))
    for name in ("up", "middle"):
        layer, mask = subject.model.get_submodule(name), subject.mask(f"{name}.weight")
        assert type(layer) is nn.Linear and not parametrize.is_parametrized(layer)
        assert int(mask.sum()) == round(0.25 * mask.numel())
        assert torch.equal(layer.weight != 0, mask)
        assert layer.weight.requires_grad
    assert [row["sparsity"] for row in subject.details["layers"]] == [0.75, 0.75]
    assert subject.mask("head.weight") is None
    assert [step for step, _ in record.curves["0/mask churn"]] == list(range(3, 40, 4))
    assert subject.compressed


def test_exploration_stops_at_its_share_of_the_updates():
    subject, method = three_layers(), TopKast(density=0.2, extra_density=0.4, update_every=100, exploration_stop=0.5)
    run = Training(subject, context(subject), plan(steps=10), [method])
    sizes = []
    for index in range(10):
        run.index = index
        run._update()
        sizes.append(int(method._layers["middle.weight"]._sets.backward_set.sum()))
    assert sizes == [round(0.6 * 192)] * 4 + [round(0.2 * 192)] * 6  # sets of update 5 are chosen after update 4
    still = TopKast(extra_density=0.4, exploration_stop=0)
    still.begin(subject := three_layers(), context(subject))
    sets = still._layers["up.weight"]._sets
    assert torch.equal(sets.forward_set, sets.backward_set)


def test_the_share_of_c_counts_weights_of_the_first_c_that_were_ever_used():
    subject, record, method = one_layer(), MemoryRecord(), TopKast(update_every=1)  # C is 3, 4, 5, 7 and 9
    method.begin(subject, context(subject, record))
    layer = method._layers["0.weight"]
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1)
    for index, largest in enumerate([(3, 0), (0, 1), (3, 9), (6, 0)]):
        weight = torch.tensor([THETA])
        weight[0, list(largest)] = 2.0
        weight[0, 5] = 0.65  # in B, which is not use
        layer.trained.data = weight
        method.after_optimizer(Update(index, 4, optimizer, 0.1))
    assert [value for _, value in record.curves["0/share of C ever activated"]] == [0.2, 0.2, 0.4, 0.4]
    assert [value for _, value in record.curves["0/mask churn"]] == [0.2, 0.2, 0.4, 0.4]


@pytest.mark.parametrize(
    ("backward", "scope", "optimizer"),
    [
        ("dense", "layer", "adamw"),
        ("dense", "global", "sgd"),
        ("sparse", "layer", "sgd"),
        ("sparse", "global", "adamw"),
    ],
)
def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path, backward, scope, optimizer):
    method = {"top_kast": {"update_every": 3, "backward": backward, "scope": scope, "exploration_stop": 0.4}}
    train = Train(steps=20, learning_rate=0.05, optimizer=optimizer, evaluations=0, methods=[method])
    (whole, record), (resumed, again) = taken_up(train, three_layers, tmp_path, at=10)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    name = "0/share of C ever activated"
    assert again.curves[name] == record.curves[name][-len(again.curves[name]) :]


def test_bfloat16_arithmetic_trains_the_same_sets_of_float32_weights():
    subjects = []
    for backward in BACKWARDS:
        subject = three_layers(dtype=torch.float32)
        method = {"top_kast": {"backward": backward}}
        Train(steps=5, precision="bfloat16", evaluations=0, methods=[method]).apply(subject, context(subject))
        subjects.append(subject)
    dense, sparse = (subject.model.middle.weight for subject in subjects)
    assert dense.dtype == sparse.dtype == torch.float32
    torch.testing.assert_close(sparse, dense, atol=2e-3, rtol=0.05)


def test_convolutions_take_part_and_the_first_and_last_layer_may_stay_dense():
    subject = resnet()
    every = list(prunable_weights(subject.model))
    method = TopKast(dense_ends=True)
    method.check(subject)
    method.begin(subject, context(subject))
    assert list(method._layers) == every[1:]
    with pytest.raises(SpecError, match=r"backward = 'sparse'.* linear layers only.*Set backward: dense"):
        TopKast(backward="sparse").check(resnet())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 0.6, "extra_density": 0.5}, r"extra_density = 0.5: and density \(0.6\) add up.*at most 0.4"),
        ({"density": 0.001}, "density = 0.001: leaves none of the 128 weights of up"),
        ({"dense_ends": True}, "dense_ends = True: leaves no layer"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    subject = three_layers()
    if "dense_ends" in settings:
        subject.models["main"] = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    with pytest.raises(SpecError, match=message):
        TopKast(**settings).check(subject)


def test_label_is_the_paper_s_pair_of_sparsities():
    assert TopKast().label() == "80/50"
    assert TopKast(density=0.1, extra_density=0.1).label() == "90/80"
    assert TopKast(density=0.2, extra_density=0.8, scope="global").label() == "80/0 global"
