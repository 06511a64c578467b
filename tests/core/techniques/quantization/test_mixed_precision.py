"""Mixed precision: the budget holds in the artifact, and what is told beside the choice."""

import copy

import pytest
import torch

from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.integrity import PACKED
from core.measure import size
from core.nn.quant_linear import QuantLinear
from core.publish import catalogue
from core.spec.catalogue import Catalogue
from core.spec.model import RunSpec
from core.spec.schema_validation import validate
from core.technique import OneShot
from core.techniques.quantization.mixed_precision import MixedPrecision
from core.techniques.quantization.sensitivity import Sensitivity
from tests.core.fakes import context
from tests.core.techniques.pruning.families import kind_of, loaded, subject_of
from tests.core.techniques.quantization.test_sensitivity import KINDS

FEW = {"bits": [2, 4, 8], "granularities": ["channel"], "calibration_examples": 8}


def apply(step: OneShot, subject):
    record = MemoryRecord()
    step.check(subject)
    step.apply(subject, context(subject, record))
    return record


def made(family="builtin vit", depth=3):
    subject = subject_of(family, depth=depth)
    subject.task.kind = KINDS[kind_of(family)]
    return subject


@pytest.fixture(scope="module")
def measured():
    """Makes subjects anew whose sensitivity was measured once."""
    known = {}

    def make(family="builtin vit", **settings):
        key = (family, str(settings))
        if key not in known:
            subject = made(family)
            apply(Sensitivity(**{**FEW, **settings}), subject)
            subject.sensitivity, subject.details = subject.details["sensitivity"], {}
            known[key] = subject
        return copy.deepcopy(known[key])

    return make


def mixed(subject, **settings):
    return apply(MixedPrecision(calibration_examples=8, **settings), subject)


@pytest.mark.parametrize("budget", [2.7, 3.5, 5.0, 7.0, 40.0])
def test_the_artifact_never_exceeds_the_budget(budget, measured, tmp_path):
    subject = measured()
    groups, other = subject.sensitivity["groups"], subject.sensitivity["other_bytes"]
    megabytes = (budget * sum(group["weights"] for group in groups) / 8 + other) / 1e6
    mixed(subject, unit="megabytes", budget=megabytes)
    artifact.save(subject, tmp_path, loaded(subject))
    stored = size.tensor_payload(tmp_path / PACKED)
    assert stored <= megabytes * 1e6
    assert subject.details["allocation"]["rows"][0]["megabytes"] == pytest.approx(stored / 1e6, rel=1e-12)


@pytest.mark.parametrize("family", ["llama", "mixtral", "bert"])
def test_other_families_meet_their_budget_too(family, measured, tmp_path):
    subject = measured(family)
    mixed(subject, budget=5.0)
    row = subject.details["allocation"]["rows"][0]
    assert row["average-bits"] <= 5.0
    artifact.save(subject, tmp_path, loaded(subject))
    assert size.tensor_payload(tmp_path / PACKED) == round(row["megabytes"] * 1e6)


def test_pruned_weights_stay_zero_and_are_not_paid_for(measured, tmp_path):
    subject = made(depth=2)
    name = "blocks.0.ffn.up"
    mask = torch.rand(subject.model.get_submodule(name).weight.shape, generator=torch.Generator().manual_seed(0)) > 0.7
    subject.constrain(f"{name}.weight", mask=mask)
    apply(Sensitivity(**FEW), subject)
    subject.sensitivity = subject.details["sensitivity"]
    mixed(subject, budget=5.0)
    weight = subject.model.get_submodule(name)
    weight = weight.weight() if isinstance(weight, QuantLinear) else weight.weight
    assert (weight[~mask] == 0).all()
    artifact.save(subject, tmp_path, loaded(subject))
    told = subject.details["allocation"]["rows"][0]["megabytes"]
    assert size.tensor_payload(tmp_path / PACKED) <= round(told * 1e6)


def test_a_planted_sensitive_layer_gets_the_high_bits():
    subject = made(depth=2)
    layer = subject.model.blocks[1].ffn.down
    with torch.no_grad():
        layer.weight[:, 3] = 12 * torch.sign(layer.weight[:, 3])
    apply(Sensitivity(**FEW), subject)
    subject.sensitivity = subject.details["sensitivity"]
    mixed(subject, budget=5.2)
    bits = {row["name"]: row["bits"] for row in subject.details["layers"]}
    assert bits["blocks.1.ffn.down"] == 8
    assert sorted(bits.values())[len(bits) // 2] == 4
    assert {bits[f"blocks.0.attention.{name}"] for name in "qkv"} in ({2}, {4}, {8})  # tied


def test_more_budget_is_never_predicted_to_be_worse(measured):
    found = []
    for budget in (3.0, 4.0, 5.0, 6.0):
        subject = measured()
        mixed(subject, budget=budget)
        found.append(subject.details["allocation"]["rows"][0]["predicted"])
    assert found == sorted(found, reverse=True)


def test_baselines_are_measured_beside_it_within_the_same_budget(measured):
    subject = measured()
    record = mixed(subject, budget=7.0)
    told = subject.details["allocation"]
    assert [row["name"] for row in told["rows"]] == ["mixed", "first and last at 8 bit", "uniform"]
    assert told["rows"][2]["format"] == "4-bit"
    for row in told["rows"]:
        assert row["average-bits"] <= 7.0 and row["kl"] > 0
        assert told["rows"][0]["predicted"] <= row["predicted"]
    assert record.events[-1] == ("info", told["verdict"])
    assert told["verdict"].startswith("Mixed precision beats the baselines")


def test_the_measured_kl_is_that_of_the_stage(measured):
    subject, exact = measured(), measured()
    mixed(subject, budget=5.0)
    batch = next(context(exact).calibration(8))
    with torch.inference_mode():
        p, q = (each.model(batch["pixel_values"]).double().log_softmax(-1) for each in (exact, subject))
    told = subject.details["allocation"]["rows"][0]["kl"]
    assert told == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)


def test_where_mixed_does_not_win_the_stage_says_so(measured):
    subject = measured()
    for index, group in enumerate(subject.sensitivity["groups"]):
        group["losses"] = [0.0, 0.0, 0.2, 0.1] if index % 2 else [0.0, 9.0, 3.0, 0.1]  # says that 2 bits cost nothing
    record = mixed(subject, budget=5.0)
    assert record.events[-1][0] == "warning"
    assert "Mixed precision does not beat uniform 4-bit at this budget: KL " in record.events[-1][1]


def test_where_uniform_is_the_best_choice_the_stage_says_so(measured):
    subject = measured()
    for group in subject.sensitivity["groups"]:
        group["losses"] = [0.0, 9.0, 0.001, 0.0009]
    record = mixed(subject, budget=4.6)
    level, message = record.events[-1]
    assert level == "warning"
    assert message == "The best choice is uniform 4-bit: mixing formats gains nothing at this budget."


def test_a_budget_that_is_too_small_is_refused_with_the_least(measured):
    with pytest.raises(SpecError, match=r"less than the cheapest choice takes: 2\.\d+ bits"):
        MixedPrecision(budget=1.5).check(measured())


def test_only_formats_with_a_kernel_here(measured):
    subject = measured(int8_activations=True)
    mixed(subject, unit="milliseconds", budget=1e3, kernels="here")
    used = set(subject.details["allocation"]["formats"])
    assert used <= {"dense", "W8A8"}  # no other format has a kernel for float32


def test_times_of_other_hardware_are_measured_again(measured):
    subject = measured()
    subject.sensitivity["hardware"] = "another machine"
    for group in subject.sensitivity["groups"]:
        group["milliseconds"] = [1e6] * 4
    record = mixed(subject, unit="milliseconds", budget=1e3)
    assert record.events[0][1].startswith("the layers' times are of another machine: measured again on ")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ([{"mixed_precision": {}}], "needs a sensitivity table from the step before it"),
        ([{"sensitivity": {}}, {"svd": {}}, {"mixed_precision": {}}], "needs a sensitivity table"),
        ([{"sensitivity": {}}, {"mixed_precision": {}}], ""),
        ([{"mixed_precision": {}}], "needs"),
    ],
)
def test_it_must_follow_a_sensitivity_step(recipe, message):
    spec = RunSpec.parse({"model": "builtin:vit", "task": "builtin:digits", "recipe": recipe})
    if not message:
        validate(spec, Catalogue(**catalogue(plugins=False)))
        return
    with pytest.raises(SpecError, match=message) as raised:
        validate(spec, Catalogue(**catalogue(plugins=False)))
    assert raised.value.problems[0].remedy == "Put a sensitivity step directly before this one."


def test_after_a_run_whose_last_step_is_not_known_here_the_run_itself_refuses():
    spec = RunSpec.parse({"model": "run:1", "task": "builtin:digits", "recipe": [{"mixed_precision": {}}]})
    validate(spec, Catalogue(**catalogue(plugins=False)))
    subject = made(depth=2)
    with pytest.raises(SpecError, match="needs a sensitivity table"):
        MixedPrecision().apply(subject, context(subject))


def test_labels_tell_the_budget():
    assert MixedPrecision().label() == "4.5 bits"
    assert MixedPrecision(unit="megabytes", budget=12.5).label() == "12.5 MB"


def test_gptq_rounds_to_the_same_formats_with_less_error(measured):
    rows = {}
    for quantizer in ("rtn", "gptq"):
        subject = measured("llama")
        mixed(subject, budget=5.0, quantizer=quantizer)
        rows[quantizer] = subject.details["allocation"]
        layers = subject.details["layers"]
    assert rows["gptq"]["formats"] == rows["rtn"]["formats"]
    assert [row["name"] for row in rows["gptq"]["rows"]][:2] == ["mixed, gptq", "mixed"]
    assert rows["gptq"]["rows"][0]["kl"] < 0.8 * rows["gptq"]["rows"][1]["kl"]
    used = {name: module.bits for name, module in subject.model.named_modules() if isinstance(module, QuantLinear)}
    assert used == {row["name"]: row["bits"] for row in layers}


def test_gptq_is_refused_where_zeros_decide_the_size(measured):
    subject = measured()
    subject.constrain("blocks.0.ffn.up.weight", mask=torch.ones(48, 32, dtype=torch.bool))
    with pytest.raises(SpecError, match="not known beforehand"):
        MixedPrecision(quantizer="gptq").check(subject)
