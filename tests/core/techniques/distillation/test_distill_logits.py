"""Logit distillation: the divergence by hand, its invariances, padding, and a teacher that nothing changes."""

import copy
import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from core.algorithms.distillation import counted_positions, distillation_loss
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.techniques.distillation.distill_logits import DistillLogits
from core.techniques.training.train import Train
from tests.core.fakes import TwoLayers, context, plane_subject, taken_up

ALL = torch.ones(6, dtype=torch.bool)


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (6, 5)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_loss_is_the_scaled_divergence_of_teacher_from_student(temperature):
    student, teacher = logits(0).float(), logits(1).float()
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature, ALL), expected)


def test_the_divergence_of_three_to_one_from_even_by_hand():
    student, teacher = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0], [5.0, 5.0]])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # at T = 2 the teacher says 3/4 and 1/4 of the first
    counted = torch.tensor([True, True])
    assert float(distillation_loss(student, teacher, 2.0, counted)) == pytest.approx(4 * divergence / 2)
    first = torch.tensor([True, False])
    assert float(distillation_loss(student, teacher, 2.0, first)) == pytest.approx(0.5232481)
    assert float(distillation_loss(student, teacher / 2, 1.0, first)) == pytest.approx(0.5232481 / 4)


def test_loss_and_gradient_vanish_where_student_and_teacher_agree():
    student = logits(0).float().requires_grad_()
    loss = distillation_loss(student, student.detach() + 3, 2.0, ALL)  # a shift changes no probability
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert float(student.grad.abs().max()) < 1e-6


def test_shifts_of_either_side_change_nothing():
    student, teacher = logits(0).float(), logits(1).float()
    loss = distillation_loss(student, teacher, 2.0, ALL)
    torch.testing.assert_close(distillation_loss(student - 7, teacher + 5, 2.0, ALL), loss, atol=1e-5, rtol=1e-5)


def test_no_gradient_reaches_the_teacher():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    distillation_loss(student, teacher, 2.0, ALL).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_the_gradient_keeps_its_size_as_the_temperature_grows():
    sizes = []
    for temperature in (50.0, 100.0):
        student = logits(0).float().requires_grad_()
        distillation_loss(student, logits(1).float(), temperature, ALL).backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_padding_is_left_out():
    student, teacher = logits(0, 2, 4, 5).float(), logits(1, 2, 4, 5).float()
    batch = {
        "labels": torch.tensor([[1, 2, -100, -100], [3, 1, 2, -100]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]),
    }
    counted = counted_positions(batch, student)
    assert counted.int().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]
    kept = [(0, 0), (0, 1), (1, 1), (1, 2)]
    each = [distillation_loss(student[i, j][None], teacher[i, j][None], 2.0, ALL[:1]) for i, j in kept]
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0, counted), torch.stack(each).mean())
    filled = teacher.masked_fill(~counted[..., None], 1e4)
    torch.testing.assert_close(distillation_loss(student, filled, 2.0, counted), torch.stack(each).mean())


def test_every_example_of_a_classification_counts():
    batch = {"labels": torch.tensor([0, 1]), "attention_mask": torch.ones(2, 7)}
    assert counted_positions(batch, torch.zeros(2, 3)).all()


def make(subject, teacher: nn.Module, **settings: object) -> DistillLogits:
    method = DistillLogits(teacher="stage:1", **settings)
    where = context(subject)
    where.resolve = lambda reference: teacher
    method.begin(subject, where)
    return method


def test_alpha_divides_the_loss_between_teacher_and_labels():
    subject, teacher = plane_subject(), plane_subject(1).model
    method = make(subject, teacher.train(), temperature=3.0, alpha=0.3)
    batch = subject.task.batch(torch.arange(6))
    student = subject.model(batch["x"])
    losses = method.losses(batch, student, {})
    assert losses.task_weight == pytest.approx(0.7)
    expected = 0.3 * distillation_loss(student, teacher(batch["x"]), 3.0, ALL)
    torch.testing.assert_close(losses.terms["distillation"], expected)
    assert not teacher.training


def test_a_student_comes_to_answer_as_its_teacher_and_the_teacher_stays():
    subject, teacher = plane_subject(), plane_subject(1).model
    before = copy.deepcopy(teacher.state_dict())
    asked = []
    where = context(subject, MemoryRecord())
    where.resolve = lambda reference: asked.append(reference) or teacher
    x = subject.task.points

    def distance() -> float:
        return float(F.mse_loss(subject.model(x).log_softmax(-1), teacher(x).log_softmax(-1)).detach())

    first = distance()
    method = {"distill_logits": {"teacher": {"source": "stage:1"}, "alpha": 1.0}}
    Train(steps=300, learning_rate=0.01, weight_decay=0, evaluations=0, methods=[method]).apply(subject, where)
    assert distance() < 0.05 * first
    assert [reference.source for reference in asked] == ["stage:1"]
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not subject.compressed


def test_a_training_taken_up_from_its_checkpoint_ends_the_same(tmp_path):
    def resolve(reference):
        return plane_subject(3).model

    method = {"distill_logits": {"teacher": "stage:1", "temperature": 3.0, "alpha": 0.7}}
    train = Train(steps=20, batch_size=8, evaluations=0, methods=[method])
    (whole, record), (resumed, again) = taken_up(train, plane_subject, tmp_path, at=9, resolve=resolve)
    for name, expected in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], expected), name
    curve = "0/distillation"
    assert again.curves[curve] == [point for point in record.curves[curve] if point[0] >= again.curves[curve][0][0]]
    assert len(again.curves[curve]) < len(record.curves[curve])


def test_a_teacher_of_other_classes_is_refused():
    subject = plane_subject()
    teacher = TwoLayers()
    teacher.head = nn.Linear(16, 3)
    method = make(subject, teacher)
    batch = subject.task.batch(torch.arange(6))
    with pytest.raises(SpecError, match=r"teacher = 'stage:1': answers with \[6, 3\], the student with \[6, 2\]"):
        method.losses(batch, subject.model(batch["x"]), {})


def test_the_teacher_must_be_a_reference():
    with pytest.raises(ValidationError, match="is not a model reference"):
        DistillLogits(teacher="bert")
    with pytest.raises(ValidationError):
        DistillLogits()


def test_label_names_teacher_and_temperature():
    assert DistillLogits(teacher="run:7", temperature=4).label() == "from run:7 T 4"
