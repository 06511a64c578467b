import pytest
import torch

from core.errors import SpecError
from core.nn.quant_linear import QuantLinear
from core.spec.model import StepSpec
from core.techniques.catalogue import TECHNIQUES, technique
from core.techniques.quantization.rtn import Rtn
from core.techniques.training.train import Train
from tests.core.fakes import context, plane_subject


def test_methods_are_bound_from_their_short_forms_and_name_the_label():
    step = Train(methods=[{"sr_ste": {"n": 1, "m": 4}}, "magnitude_pruning"])
    assert [type(method) for method in step.bound_methods()] == [TECHNIQUES["sr_ste"], TECHNIQUES["magnitude_pruning"]]
    assert step.label().startswith("sr_ste 1:4 + magnitude_pruning")
    assert Train(steps=30).label() == "30 updates"


@pytest.mark.parametrize(
    ("methods", "field", "words"),
    [
        (["rtn"], "methods[0]", "is a step, not a training method"),
        (["sr_ste", "sr_stee"], "methods[1]", "Did you mean sr_ste?"),
        ([{"sr_ste": {"n": 0}}], "methods[0].sr_ste.n", "greater than or equal to 1"),
    ],
)
def test_a_wrong_method_is_named_with_its_place(methods, field, words):
    with pytest.raises(SpecError) as caught:
        Train(methods=methods).bound_methods()
    assert caught.value.problems[0].field.startswith(field) and words in str(caught.value)


@pytest.mark.parametrize(
    "methods",
    [["sr_ste", "rigl"], ["magnitude_pruning", "movement_pruning"], ["top_kast", {"cofi": {"teacher": "stage:0"}}]],
)
def test_two_methods_that_decide_the_same_are_refused(methods):
    with pytest.raises(
        SpecError, match=r"methods\[1\].*decides which weights are kept, as does .* Use two train steps"
    ):
        Train(methods=methods).check(plane_subject())


def test_packed_integer_weights_are_refused_with_the_remedy():
    subject = plane_subject()
    subject.model.up = Rtn(bits=4).quantize(subject.model.up)
    assert isinstance(subject.model.up, QuantLinear)
    with pytest.raises(SpecError, match="has no gradient"):
        Train().check(subject)


def test_a_frozen_part_stays_as_it_is():
    subject = plane_subject()
    subject.model.up.requires_grad_(False)
    before = subject.model.up.weight.clone()
    Train(steps=5, evaluations=0).apply(subject, context(subject))
    assert torch.equal(subject.model.up.weight, before)


def test_a_method_that_compresses_marks_the_subject():
    subject = plane_subject()
    step = technique(
        StepSpec(technique="train", settings={"steps": 2, "evaluations": 0, "methods": ["magnitude_pruning"]}),
        "recipe[0]",
    )
    step.apply(subject, context(subject))
    assert subject.compressed
