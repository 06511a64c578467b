"""Channel permutation on whole models: the same answers, and more magnitude left for N:M."""

import pytest
import torch
from torch import nn

from core import models, tasks
from core.algorithms.masks import divisible_weights, prunable_weights
from core.algorithms.permutation import find_permutation, kept_sum, row_wise_sum
from core.engine.recording import MemoryRecord
from core.errors import SpecError, TechniqueFailure
from core.models.channels import Channels, Network
from core.nn.packing import rows_of
from core.spec.model import ModelSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import logits_of
from core.techniques.pruning import channel_permutation
from core.techniques.pruning.channel_permutation import ChannelPermutation
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.fakes import PlaneTask, context, plane_subject

QUICK = {"strategy": "greedy_swap", "escapes": 5}
SOURCES = {
    "vit": {"source": "builtin:vit", "dim": 32, "depth": 2, "heads": 2},
    "gated vit": {"source": "builtin:vit", "dim": 32, "depth": 1, "heads": 4, "ffn": "swiglu"},
    "resnet": {"source": "builtin:resnet", "depth": 8, "width": 8},
}


@pytest.fixture(scope="module")
def digits():
    task = tasks.load(TaskSpec(source="builtin:digits"))
    task.prepare(models.describe(ModelSpec(source="builtin:vit"), task).input_format)
    return task


@pytest.fixture
def make(digits):
    def made(name: str) -> Subject:
        loaded = models.load(ModelSpec.model_validate(SOURCES[name]), digits, torch.Generator().manual_seed(0))
        with torch.no_grad():
            for tensor in loaded.module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(0.1 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)))
        return Subject({"main": loaded.module}, digits, {"main": loaded.config})

    return made


class Deep(nn.Module):
    """Two layers with channels between them, one without."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.down(self.up(x).relu()).relu())


def deep_subject(module: nn.Module | None = None) -> Subject:
    torch.manual_seed(0)
    return Subject({"main": module or Deep()}, PlaneTask(), {"main": {}})


def kept(subject: Subject, n: int = 2, m: int = 4) -> float:
    """What n:m pruning leaves of all layers that it prunes."""
    return sum(kept_sum(rows_of(w).detach().abs(), n, m) for w in divisible_weights(subject.model, m).values())


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"residual": True, "values": False}, {"ffn": False}])
@pytest.mark.parametrize("name", SOURCES)
def test_answers_stay_and_more_is_kept(name, settings, make):
    subject = make(name)
    subject.model.double()
    batch = next(context(subject).calibration(16))
    expected = subject.model(batch["pixel_values"].double())
    before = kept(subject)
    ChannelPermutation(**QUICK, **settings).apply(subject, context(subject))
    assert (subject.model(batch["pixel_values"].double()) - expected).abs().max() < 1e-10
    assert kept(subject) > before


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8)])
def test_pruning_keeps_more_after_it_than_alone(n, m, make):
    alone, permuted = make("vit"), make("vit")
    NmPruning(n=n, m=m).apply(alone, context(alone))
    ChannelPermutation(n=n, m=m, **QUICK).apply(permuted, context(permuted))
    NmPruning(n=n, m=m).apply(permuted, context(permuted))

    def left(subject: Subject) -> float:
        return sum(float(w.detach().abs().sum()) for w in prunable_weights(subject.model).values())

    assert left(permuted) > left(alone)


@pytest.mark.parametrize("last", [DynamicInt8(), Rtn(bits=8)])
def test_masks_of_permuted_weights_hold_through_sparse_training_and_integers(last, make):
    subject = make("vit")
    methods = [{"sr_ste": {}}, {"distill_logits": {"teacher": "stage:0"}}]
    train = Train.model_validate({"steps": 3, "evaluations": 0, "batch_size": 16, "methods": methods})
    for step in (ChannelPermutation(**QUICK), NmPruning(), train):
        step.apply(subject, context(subject))
    masks = {name: subject.mask(name) for name in prunable_weights(subject.model)}
    last.apply(subject, context(subject))
    for name, mask in masks.items():
        assert (mask.view(-1, 4).sum(1) == 2).all()
        assert not subject.model.get_submodule(name.removesuffix(".weight")).weight()[~mask].any()


def test_rows_say_what_each_layer_keeps(make):
    subject = make("gated vit")
    weights = {name: w.detach().clone() for name, w in prunable_weights(subject.model).items()}
    ChannelPermutation(**QUICK).apply(subject, context(subject))
    rows = subject.details["layers"]
    assert [(row["name"], row["part"]) for row in rows] == [
        ("blocks.0.attention.o", "values"),
        ("blocks.0.ffn.down", "ffn"),
    ]
    for row in rows:
        name = f"{row['name']}.weight"
        old, new = weights[name].abs(), subject.model.get_parameter(name).detach().abs()
        total, before, after = float(old.sum()), kept_sum(old, 2, 4), kept_sum(new, 2, 4)
        assert row["kept before (%)"] == pytest.approx(100 * before / total)
        assert row["kept after (%)"] == pytest.approx(100 * after / total)
        bound = row_wise_sum(old, 2, 4)
        assert row["efficacy (%)"] == pytest.approx(100 * (after - before) / (bound - before))
        assert 0 < row["efficacy (%)"] < 100 and row["seconds"] > 0
    assert subject.details["left alone"]["blocks.0.attention.q"] == "residual is off"


def test_what_is_left_alone_is_told_with_its_reason(make):
    subject, record = make("vit"), MemoryRecord()
    ChannelPermutation(**QUICK).apply(subject, context(subject, record))
    ((level, message),) = record.events
    assert level == "info" and "residual is off (blocks.0.attention.q and 7 more)" in message


def test_progress_goes_from_layer_to_layer():
    told = []
    subject = deep_subject()
    record = MemoryRecord(lambda share, text: told.append((share, text)))
    record.begin_step(0, 1, "permutation", "key")
    ChannelPermutation(**QUICK).apply(subject, context(subject, record))
    assert told[0] == (0.0, "permutation: down")
    assert [share for share, _ in told] == sorted(share for share, _ in told) and told[-1][0] <= 1


def test_layers_that_read_the_same_channels_are_searched_together(monkeypatch):
    found = []

    def search(matrix, **options):
        found.append(find_permutation(matrix, **options))
        return found[-1]

    monkeypatch.setattr(channel_permutation, "find_permutation", search)

    class Siblings(Deep):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(16, 16)

        def forward(self, x):
            y = self.up(x).relu()
            return self.head(self.down(y) + self.other(y))

    subject = deep_subject(Siblings())
    stacked = torch.cat([subject.model.down.weight, subject.model.other.weight]).detach().clone()
    ChannelPermutation(**QUICK).apply(subject, context(subject))
    after = torch.cat([subject.model.down.weight, subject.model.other.weight]).detach()
    assert kept_sum(after.abs(), 2, 4) > kept_sum(stacked.abs(), 2, 4)
    assert torch.equal(after.sort(dim=1).values, stacked.sort(dim=1).values)
    rows = subject.details["layers"]
    assert [row["name"] for row in rows] == ["down", "other"] and len(found) == 1
    assert [row["seconds"] for row in rows] == [found[0].seconds / 2] * 2


def test_masks_of_earlier_steps_move_with_their_weights():
    subject = deep_subject()
    MagnitudePruning(sparsity=0.5).apply(subject, context(subject))
    old = {name: subject.mask(name).clone() for name in ("up.weight", "down.weight")}
    ChannelPermutation(**QUICK).apply(subject, context(subject))
    for name, mask in old.items():
        moved = subject.mask(name)
        assert not torch.equal(moved, mask)
        assert torch.equal(moved, subject.model.get_parameter(name) != 0)
    assert torch.equal(subject.mask("up.weight").sum(1).sort().values, old["up.weight"].sum(1).sort().values)


def test_what_is_pruned_to_the_pattern_already_stays_as_it_is():
    subject = deep_subject()
    NmPruning().apply(subject, context(subject))
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    ChannelPermutation(**QUICK).apply(subject, context(subject))
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.model.state_dict().items())
    assert subject.details["layers"][0]["efficacy (%)"] == 100


def test_a_model_whose_answers_would_change_is_left_as_it_was(monkeypatch):
    def forgetful(model, answer):
        network = channel_permutation_trace(model, answer)
        channels = tuple(Channels(tuple(s for s in c.slots if not s.name.endswith("bias"))) for c in network.channels)
        return Network(channels, network.frozen, network.tensors, network.names)

    channel_permutation_trace = channel_permutation.trace_channels
    monkeypatch.setattr(channel_permutation, "trace_channels", forgetful)
    subject = deep_subject()
    MagnitudePruning(sparsity=0.25).apply(subject, context(subject))
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    mask = subject.mask("down.weight").clone()
    with pytest.raises(TechniqueFailure, match="left unchanged"):
        ChannelPermutation(**QUICK).apply(subject, context(subject))
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.model.state_dict().items())
    assert torch.equal(subject.mask("down.weight"), mask)


def test_a_model_whose_channels_all_keep_their_order_is_refused_with_the_reason():
    class Grouped(Deep):
        def forward(self, x):
            return self.head(self.down(nn.functional.group_norm(self.up(x), 4)))

    subject = deep_subject(Grouped())
    with pytest.raises(TechniqueFailure, match=r"native_group_norm, which has no rule here \(down\)"):
        ChannelPermutation(**QUICK).apply(subject, context(subject))


def test_half_precision_is_permuted_too(make):
    subject = make("vit")
    subject.model.to(torch.bfloat16)
    batch = next(context(subject).calibration(8))
    expected, before = logits_of(subject.model, batch), kept(subject)
    ChannelPermutation(**QUICK).apply(subject, context(subject))
    assert (logits_of(subject.model, batch) - expected).abs().max() < 0.1 * expected.abs().max()
    assert kept(subject) > before


def test_the_same_run_finds_the_same_order():
    orders = []
    for _ in range(2):
        subject = deep_subject()
        ChannelPermutation(strategy="stripe_groups", escapes=10).apply(subject, context(subject))
        orders.append(subject.model.down.weight.detach().clone())
    assert torch.equal(*orders)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"n": 4}, "n"),
        ({"m": 7, "n": 2}, "m"),
        ({"ffn": False, "values": False}, "ffn"),
        ({"m": 16, "width": 3}, "width"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_computed(settings, field, make):
    subject = make("vit")
    subject.model.to("meta")
    with pytest.raises(SpecError) as caught:
        ChannelPermutation(**settings).check(subject)
    assert caught.value.problems[0].field == field
    ChannelPermutation().check(subject)


def test_a_plain_model_has_no_parts_to_switch_off():
    ChannelPermutation(ffn=False, values=False).check(plane_subject())


def test_label_says_pattern_and_search():
    assert ChannelPermutation().label() == "2:4 stripe groups 2"
    assert ChannelPermutation(n=1, strategy="greedy_swap").label() == "1:4 greedy swap"
