"""What counts as reached: what a step changed, masked, cut or swapped; not what it passed over."""

import pytest
import torch
from torch import nn

from core.measure.reach import Snapshot
from core.nn.low_rank_linear import LowRankLinear
from core.subject import Subject
from core.technique import OneShot
from core.techniques.catalogue import TECHNIQUES
from core.techniques.pruning.depth_pruning import take_out_
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.fakes import context, plane_subject
from tests.core.techniques.architecture.small_gpt import subject_of
from tests.core.techniques.steps import SMALL, bind, precede

UP, HEAD = 8 * 16 + 16, 16 * 2 + 2  # the parameters of TwoLayers, biases included
TOTAL = UP + HEAD


def reached(subject: Subject, change) -> dict:
    before = Snapshot(subject)
    change(subject)
    return before.compare()


def write(subject: Subject) -> None:
    with torch.no_grad():
        subject.model.up.weight.mul_(1.0)  # nothing changes, but it was written to


def write_data(subject: Subject) -> None:
    subject.model.up.weight.data[0, 0] += 1


def mask(subject: Subject) -> None:
    subject.constrain("up.weight", mask=torch.ones(16, 8, dtype=torch.bool))  # drops nothing


def take_out(subject: Subject) -> None:
    subject.model.up.weight = nn.Parameter(torch.zeros(16, 8))


@pytest.mark.parametrize("change", [write, write_data, mask, take_out])
def test_what_is_written_masked_or_replaced_is_reached(change):
    found = reached(plane_subject(), change)
    assert found["share"] == pytest.approx(128 / TOTAL) and found["parameters"] == TOTAL
    missed = [("head", "Linear", HEAD), ("up", "Linear", 16)]
    assert [(m["name"], m["kind"], m["parameters"]) for m in found["missed"]] == missed
    assert found["covered"] == pytest.approx(128 / TOTAL if change is mask else 0)


def test_nothing_is_reached_by_reading_or_by_making_the_same_parameter_anew():
    def look(subject: Subject) -> None:
        subject.model(subject.task.points)
        subject.model.up.weight = nn.Parameter(subject.model.up.weight.detach().clone())

    assert reached(plane_subject(), look)["share"] == 0


def test_a_module_that_takes_anothers_place_reaches_all_that_is_in_it():
    def swap(subject: Subject) -> None:
        subject.replace("up", LowRankLinear.from_linear(subject.model.up, 2))

    assert reached(plane_subject(), swap)["share"] == pytest.approx(UP / TOTAL)


def test_packed_layers_count_as_the_weights_that_they_stand_for():
    subject = plane_subject()
    Rtn(include_head=True).apply(subject, context(subject))
    assert reached(subject, lambda _: None) == {
        "share": 0,
        "covered": 0,
        "parameters": TOTAL,
        "missed": [
            {"name": "up", "kind": "QuantLinear", "parameters": UP},
            {"name": "head", "kind": "QuantLinear", "parameters": HEAD},
        ],
    }


def test_a_training_tells_its_methods_share_beside_its_own():
    methods = [{"magnitude_pruning": {"sparsity": 0.5}}]
    train = Train(steps=2, batch_size=8, evaluations=0, methods=methods)
    found = reached(plane_subject(), lambda subject: train.apply(subject, context(subject)))
    assert found["share"] == 1 and 0 < found["covered"] < 1


def test_blocks_that_move_up_are_not_reached():
    subject = subject_of(depth=3)[0]
    blocks = [sum(p.numel() for p in block.parameters()) for block in subject.model.blocks]
    found = reached(subject, lambda subject: take_out_(subject, [0]))
    assert found["share"] == pytest.approx(blocks[0] / found["parameters"])


STEPS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, OneShot)]
SETTINGS = SMALL | {"train": {"steps": 1, "evaluations": 0}}
ONLY_FOR_IMAGES = {"fq_vit", "ptq4vit", "repq_vit"}
ELSEWHERE = ONLY_FOR_IMAGES | {"bigbird", "etc", "mlp_mixer", "token_merging", "reap"}  # not for causal dense models


@pytest.mark.parametrize("name", [name for name in STEPS if name not in ELSEWHERE and TECHNIQUES[name].changes])
def test_every_step_that_changes_the_model_reaches_something(name):
    subject = subject_of()[0]
    step = bind({name: SETTINGS.get(name, {})})
    precede(step, subject)
    step.check(subject)
    found = reached(subject, lambda subject: step.apply(subject, context(subject)))
    assert 0.05 < found["share"] <= 1
    assert found["share"] >= found["covered"]
    assert sum(module["parameters"] for module in found["missed"]) == round((1 - found["share"]) * found["parameters"])
