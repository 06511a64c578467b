"""RigL: which weights it drops and grows, its densities and its schedule, and the counts that never change."""

import pytest
import torch
from torch import Tensor, nn

from core.algorithms.masks import keep_largest
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.subject import Subject
from core.techniques.sparse_training.density import active_counts, erk_densities
from core.techniques.sparse_training.rigl import Rigl, cosine_share, drop_and_grow
from core.techniques.training.train import Train
from core.training.loop import Training
from tests.core.fakes import context, taken_up
from tests.core.techniques.sparse_training.test_top_kast import resnet, three_layers
from tests.core.training.test_loop import plan

SHAPES = {"narrow": (4, 4), "wide": (64, 32), "long": (8, 128), "conv": (16, 8, 3, 3)}


def test_the_smallest_active_weights_make_room_for_the_largest_gradients():
    weight = torch.tensor([0.9, -0.1, 0.5, 0.0, 0.0, 0.0])
    active = torch.tensor([True, True, True, False, False, False])
    gradient = torch.tensor([9.0, 0.1, 9.0, 0.2, -3.0, 1.0])  # those of kept weights do not count
    assert drop_and_grow(weight, active, gradient, 1).tolist() == [True, False, True, False, True, False]
    regrown = torch.tensor([9.0, 5.0, 9.0, 0.2, -3.0, 1.0])  # what was dropped may grow again
    assert drop_and_grow(weight, active, regrown, 1).tolist() == active.tolist()
    assert drop_and_grow(weight, active, gradient, 2).tolist() == [True, False, True, False, True, False]
    assert drop_and_grow(weight, active, gradient, 0).tolist() == active.tolist()


@pytest.mark.parametrize("n_changed", [0, 1, 7, 20])
@pytest.mark.parametrize("n_active", [20, 45, 60])
def test_as_many_weights_are_active_as_before(n_active, n_changed):
    generator = torch.Generator().manual_seed(n_active + n_changed)
    weight, growth = (torch.randint(-2, 3, (6, 10), generator=generator).float() for _ in range(2))
    active = keep_largest(torch.rand(6, 10, generator=generator), n_active)
    new = drop_and_grow(weight * active, active, growth, n_changed)
    assert int(new.sum()) == n_active
    assert int((new & ~active).sum()) <= n_changed


def test_the_share_falls_along_a_cosine_to_zero():
    assert [cosine_share(progress, 0.3) for progress in (0, 0.5, 1)] == pytest.approx([0.3, 0.15, 0])
    assert cosine_share(0.25, 0.4) == pytest.approx(0.2 * (1 + 0.5**0.5))


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3, 0.6, 0.95])
def test_erk_keeps_the_density_and_the_rule_of_every_layer_that_is_not_dense(density):
    found = erk_densities(SHAPES, density)
    sizes = {name: torch.Size(shape).numel() for name, shape in SHAPES.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in SHAPES.items()}
    low, high = 0.0, 1000.0  # the slow way: the scale at which the capped densities add up
    for _ in range(200):
        scale = (low + high) / 2
        total = sum(min(1.0, scale * raw[name]) * sizes[name] for name in SHAPES)
        low, high = (scale, high) if total < density * sum(sizes.values()) else (low, scale)
    assert found == pytest.approx({name: min(1.0, scale * raw[name]) for name in SHAPES})


def test_erk_by_hand():
    """Of 16 + 64 weights 28 are kept: scale 28 / (8 + 16), which would make `a` 9.33 of 16 and `b` 18.67 of 64."""
    assert erk_densities({"a": (4, 4), "b": (8, 8)}, 0.35) == pytest.approx({"a": 7 / 12, "b": 7 / 24})
    assert active_counts({"a": (4, 4), "b": (8, 8)}, 0.35, "erk") == {"a": 9, "b": 19}
    assert erk_densities({"a": (4, 4), "b": (8, 8)}, 0.7) == pytest.approx({"a": 1.0, "b": 40 / 64})
    assert active_counts({"a": (4, 4), "b": (8, 8)}, 0.35, "uniform") == {"a": 6, "b": 22}


def masks_of(subject: Subject) -> dict[str, Tensor]:
    return {name: subject.mask(name) for name in ("up.weight", "middle.weight")}


@pytest.mark.parametrize("grow", ["gradient", "random"])
@pytest.mark.parametrize("settings", [{"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adamw"}])
def test_counts_never_change_and_what_is_inactive_is_zero(grow, settings):
    subject = three_layers()
    method = Rigl(sparsity=0.7, update_every=2, stop=1, drop_fraction=0.5, grow=grow)
    run = Training(subject, context(subject), plan(steps=16, learning_rate=0.05, **settings), [method])
    counts = active_counts({"up.weight": (16, 8), "middle.weight": (12, 16)}, 0.3, "erk")
    changed = []
    before = masks_of(subject)
    for index in range(16):
        run.index = index
        run._update()
        after = masks_of(subject)
        for name, mask in after.items():
            assert int(mask.sum()) == counts[name]
            assert (subject.model.get_parameter(name)[~mask] == 0).all()
        if any(not torch.equal(before[name], mask) for name, mask in after.items()):
            changed.append(index)
        before = after
    assert changed[:6] == [2, 4, 6, 8, 10, 12]  # the last share may round to none
    assert changed[6:] in ([], [14])


def test_masks_change_every_few_updates_until_the_stop():
    subject, record = three_layers(), MemoryRecord()
    method = {"rigl": {"sparsity": 0.5, "update_every": 5, "stop": 0.5}}
    Train(steps=40, learning_rate=0.05, methods=[method]).apply(subject, context(subject, record))
    assert [step for step, _ in record.curves["0/mask churn"]] == [5, 10, 15]


class Watched(Rigl):
    """Notes weights, gradients and masks around every change."""

    _changes: list = []

    def before_optimizer(self, update):
        weight = self._subject.model.up.weight
        old = self._subject.mask("up.weight")
        note = (weight.detach().clone(), weight.grad.clone(), old)
        super().before_optimizer(update)
        new = self._subject.mask("up.weight")
        if new is not old:
            self._changes = [*self._changes, (*note, new, weight.detach().clone(), _state(update.optimizer, weight))]


def _state(optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    state = optimizer.state[weight].items()
    return {key: value.clone() for key, value in state if isinstance(value, Tensor) and value.shape == weight.shape}


@pytest.mark.parametrize("settings", [{"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adamw"}])
def test_grown_weights_have_the_largest_gradients_and_start_at_zero_without_momentum(settings):
    subject = three_layers()
    method = Watched(sparsity=0.6, update_every=3, drop_fraction=0.4, distribution="uniform")
    Training(subject, context(subject), plan(steps=12, learning_rate=0.05, **settings), [method]).run()
    assert len(method._changes) == 2  # after 3 and 6 of 12 updates; at 9 it has stopped
    for index, (weight, gradient, old, new, after, state) in zip((3, 6), method._changes, strict=True):
        n_changed = round(cosine_share(index / 9, 0.4) * int(old.sum()))
        order = weight.abs().masked_fill(~old, torch.inf).flatten().argsort()
        kept = old.clone().flatten()
        kept[order[:n_changed]] = False
        chosen = gradient.abs().flatten().masked_fill(kept, -1).argsort(descending=True)[:n_changed]
        expected = kept.clone()
        expected[chosen] = True
        assert torch.equal(new.flatten(), expected)
        grown = new & ~old
        assert grown.any()
        assert (after[~new] == 0).all() and (after[grown] == 0).all()
        assert torch.equal(after[old & new], weight[old & new])
        assert state
        assert all((value[grown] == 0).all() and (value[old & new] != 0).any() for value in state.values())


def test_grown_weights_move_in_the_update_that_grew_them():
    subject = three_layers()
    method = Watched(sparsity=0.6, update_every=3, drop_fraction=0.4)
    run = Training(subject, context(subject), plan(steps=12, learning_rate=0.05), [method])
    for index in range(4):
        run.index = index
        run._update()
    _, _, old, new, *_ = method._changes[0]
    assert (subject.model.up.weight[new & ~old] != 0).all()


def test_growing_nothing_keeps_the_first_masks():
    subject, record = three_layers(), MemoryRecord()
    run = Training(subject, context(subject, record), plan(steps=30), [Rigl(grow="none", update_every=2)])
    first = masks_of(subject)
    run.run()
    assert all(torch.equal(mask, first[name]) for name, mask in masks_of(subject).items())
    assert "0/mask churn" not in record.curves


def test_random_growth_is_not_led_by_the_gradient_and_is_the_same_for_the_same_run():
    ends = []
    for grow in ("gradient", "random", "random"):
        subject = three_layers()
        Train(steps=12, evaluations=0, methods=[{"rigl": {"sparsity": 0.7, "update_every": 2, "grow": grow}}]).apply(
            subject, context(subject)
        )
        ends.append(subject.mask("up.weight"))
    assert not torch.equal(ends[0], ends[1])
    assert torch.equal(ends[1], ends[2])


def test_the_share_ever_active_counts_every_mask():
    subject, record = three_layers(), MemoryRecord()
    method = Rigl(sparsity=0.8, update_every=2, stop=1)
    run = Training(subject, context(subject, record), plan(steps=20, learning_rate=0.05), [method])
    ever, shares = masks_of(subject), []
    for index in range(20):
        run.index = index
        run._update()
        ever = {name: ever[name] | mask for name, mask in masks_of(subject).items()}
        if index and index % 2 == 0:
            shares.append(sum(int(mask.sum()) for mask in ever.values()) / (128 + 192))
    assert [value for _, value in record.curves["0/share ever active"]] == shares
    assert shares[-1] > shares[0] > 0.2


def test_masks_from_before_are_replaced_and_those_of_other_layers_stay():
    subject = three_layers()
    subject.constrain("up.weight", mask=torch.zeros(16, 8, dtype=torch.bool))
    head = torch.eye(2, 12, dtype=torch.bool)
    subject.constrain("head.weight", mask=head)
    Train(steps=6, evaluations=0, methods=[{"rigl": {"sparsity": 0.5, "distribution": "uniform"}}]).apply(
        subject, context(subject)
    )
    assert int(subject.mask("up.weight").sum()) == 64
    assert (subject.model.up.weight != 0).any()
    assert torch.equal(subject.model.head.weight != 0, head)
    assert [row["sparsity"] for row in subject.details["layers"]] == [0.5, 0.5]


@pytest.mark.parametrize(("grow", "optimizer"), [("gradient", "adamw"), ("random", "sgd")])
def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path, grow, optimizer):
    method = {"rigl": {"sparsity": 0.7, "update_every": 3, "grow": grow}}
    train = Train(steps=20, learning_rate=0.05, optimizer=optimizer, evaluations=0, methods=[method])
    (whole, record), (resumed, again) = taken_up(train, three_layers, tmp_path, at=10)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name
    name = "0/share ever active"
    assert again.curves[name] == record.curves[name][-len(again.curves[name]) :]


def test_convolutions_take_part():
    subject = resnet()
    method = Rigl(sparsity=0.8)
    method.check(subject)
    method.begin(subject, context(subject))
    shapes = {fqn.removeprefix("main."): tuple(c.tensor.shape) for fqn, c in subject.constraints.items()}
    counts = active_counts(shapes, 0.2, "erk")
    assert {name: int((subject.model.get_parameter(name) != 0).sum()) for name in shapes} == counts
    n = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert abs(sum(counts.values()) - 0.2 * n) <= len(shapes) / 2


def test_impossible_settings_are_refused():
    with pytest.raises(SpecError, match=r"sparsity = 0.999: leaves none of the 128 weights of up.*distribution: erk"):
        Rigl(sparsity=0.999, distribution="uniform").check(three_layers())


def test_label_names_sparsity_distribution_and_growth():
    labels = [Rigl().label(), Rigl(distribution="uniform", grow="random").label(), Rigl(grow="none").label()]
    assert labels == ["90 % ERK", "90 % uniform SET", "90 % ERK static"]
