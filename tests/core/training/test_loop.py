import pytest
import torch
from torch import Tensor, nn

from core.engine.recording import MemoryRecord
from core.errors import TechniqueFailure
from core.subject import Constraint, Subject
from core.technique import Family, Losses, TrainingMethod, Update
from core.techniques.training.train import Train
from core.training.loop import Plan, Training, leaf_parameter, schedule_factor
from tests.core.fakes import context, plane_subject, taken_up


def plan(**changes: object) -> Plan:
    defaults = {name: field.default for name, field in Train.model_fields.items()}
    return Plan(
        **{name: (defaults | {"steps": 20, "evaluations": 0} | changes)[name] for name in Plan.__dataclass_fields__}
    )


def weights(subject: Subject) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in subject.model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_rate_rises_linearly_then_falls_along_the_cosine_to_zero():
    course = [schedule_factor(plan(steps=10, warmup=0.2), index) for index in range(10)]
    assert course[:3] == [0.5, 1.0, 1.0]
    assert course[6] == pytest.approx(0.5)
    assert course[9] == pytest.approx(0.5 * (1 + torch.cos(torch.tensor(torch.pi * 7 / 8)).item()))


def test_training_learns_the_task():
    subject = plane_subject()
    record = MemoryRecord()
    Train(steps=200, learning_rate=0.01).apply(subject, context(subject, record))
    losses = [value for _, value in record.curves["0/loss"]]
    assert losses[-1] < 0.3 * losses[0]
    assert subject.trained and not subject.compressed and not subject.model.training


class Watched(nn.Linear):
    """A layer that tells what it saw."""

    seen = 0.0

    def observed(self) -> dict[str, float]:
        return {"seen": self.seen}


def test_what_modules_observe_is_drawn_as_the_mean_over_them():
    subject = plane_subject()
    for name, seen in (("first", 1.0), ("second", 4.0)):
        watched = Watched(1, 1)
        watched.seen = seen
        subject.model.add_module(name, watched)
    record = MemoryRecord()
    Train(steps=2).apply(subject, context(subject, record))
    assert record.curves["0/seen"] == [(0, 2.5), (1, 2.5)]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_masked_weights_stay_zero_against_momentum_and_decay(optimizer):
    subject = plane_subject()
    mask = torch.rand(16, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    run = Training(subject, context(subject), plan(optimizer=optimizer), [])
    run._update()  # momentum of every weight is now nonzero
    subject.constrain("up.weight", mask=mask)
    for _ in range(5):
        run.index += 1
        run._update()
    assert (subject.model.up.weight[~mask] == 0).all()
    assert (subject.model.up.weight[mask] != 0).all()


class Doubling(TrainingMethod):
    """Doubles the task's loss and notes what it is given."""

    family = Family.TRAINING
    paper = "https://example.org"
    _seen: list = []

    def taps(self):
        return ["up"]

    def losses(self, batch, logits, taps):
        self._seen = [*self._seen, ("losses", tuple(taps["up"].shape), logits.requires_grad)]
        return Losses({"extra": 2 * taps["up"].square().mean()}, task_weight=0.5)

    def before_optimizer(self, update: Update):
        self._seen = [*self._seen, ("before", update.index, update.total)]

    def after_optimizer(self, update: Update):
        self._seen = [*self._seen, ("after", update.index, update.learning_rate)]


def test_methods_see_taps_add_losses_and_are_called_around_every_update():
    subject, record, method = plane_subject(), MemoryRecord(), Doubling()
    alone = MemoryRecord()
    Training(plane_subject(), context(subject, alone), plan(steps=1), []).run()
    Training(subject, context(subject, record), plan(steps=1, warmup=0), [method]).run()
    assert [entry[0] for entry in method._seen] == ["losses", "before", "after"]
    assert method._seen[0] == ("losses", (64, 16), True)
    assert record.curves["0/loss"][0][1] == pytest.approx(0.5 * alone.curves["0/loss"][0][1])
    assert "0/extra" in record.curves
    assert not subject.model.up._forward_hooks


class Multiplier(TrainingMethod):
    """A parameter of its own that climbs, as a Lagrange multiplier does."""

    family = Family.TRAINING
    paper = "https://example.org"
    _value: nn.Parameter | None = None

    def begin(self, subject, context):
        self._value = nn.Parameter(torch.zeros(()))

    def param_groups(self):
        return [{"params": [self._value], "lr": 0.1, "weight_decay": 0.0, "maximize": True}]

    def losses(self, batch, logits, taps):
        return Losses({"constraint": self._value * 3.0})


def test_own_parameters_have_their_own_rate_and_may_ascend():
    subject, method = plane_subject(), Multiplier()
    Training(subject, context(subject), plan(steps=5, warmup=0, schedule="constant"), [method]).run()
    assert float(method._value.detach()) == pytest.approx(0.5, rel=1e-4)  # Adam moves by the rate: 5 x 0.1, upwards


def test_terms_of_one_name_are_added_up():
    subject, methods = plane_subject(), [Multiplier(), Multiplier()]
    training = Training(subject, context(subject), plan(), methods)
    for method in methods:
        method._value.data.fill_(1.0)
    assert float(training._losses(training._next_batch())["constraint"].detach()) == 6.0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_taken_up_from_its_checkpoint_equals_one_never_interrupted(tmp_path, optimizer):
    train = Train(steps=30, optimizer=optimizer, batch_size=16)
    (whole, _), (resumed, record) = taken_up(train, plane_subject, tmp_path, at=13)
    assert record.events[0] == ("info", "resumed at update 13 of 30")
    assert same(weights(whole), weights(resumed))


def test_masks_come_back_with_the_checkpoint(tmp_path):
    subject = plane_subject()
    subject.constrain("up.weight", mask=torch.eye(16, 8, dtype=torch.bool))
    place = tmp_path / "training.safetensors"
    run = Training(subject, context(subject, checkpoint=place), plan(), [])
    run.save()
    again = plane_subject()
    again.constraints["main.up.weight"] = Constraint("mask", torch.ones(16, 8, dtype=torch.bool))
    Training(again, context(again, checkpoint=place), plan(), []).load()
    assert torch.equal(again.mask("up.weight"), torch.eye(16, 8, dtype=torch.bool))


def test_a_diverging_training_says_what_to_change():
    subject = plane_subject()
    with pytest.raises(TechniqueFailure, match="lower learning_rate"):
        Train(steps=50, learning_rate=100, optimizer="sgd", clip_norm=0, warmup=0, weight_decay=10).apply(
            subject, context(subject)
        )


def test_leaf_parameter_is_the_original_below_a_parametrization():
    linear = nn.Sequential(nn.Linear(2, 2))
    plain = leaf_parameter(linear, "0.weight")
    assert plain is linear[0].weight
    nn.utils.parametrize.register_parametrization(linear[0], "weight", nn.Tanh())
    assert leaf_parameter(linear, "0.weight") is linear[0].parametrizations.weight.original


def test_every_epoch_has_its_own_order_and_sees_each_example_once():
    subject = plane_subject()
    run = Training(subject, context(subject), plan(batch_size=32), [])
    seen = []
    for index in range(4):
        run.index = index
        seen.append(run._next_batch()["x"])
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(epoch[:, 0].sort().values, subject.task.points[:, 0].sort().values)
