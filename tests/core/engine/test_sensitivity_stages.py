"""A sensitivity stage: it leaves the model as it is, is no new family, and serves every budget."""

from core.engine.recording import MemoryRecord
from core.engine.stage_plan import bound_steps, stage_family
from core.measured import SOURCE
from core.spec.model import StepSpec
from tests.core.engine.small_runs import TRAIN, run, same, spec, weights

SENSITIVITY = {"sensitivity": {"bits": [2, 4, 8], "granularities": ["channel"], "calibration_examples": 8}}


def test_another_budget_reuses_the_table(tmp_path):
    first = run(tmp_path, spec(TRAIN, SENSITIVITY, {"mixed_precision": {"budget": 4.5}}))
    _, trained, measured, small = first
    assert measured.measured.details.keys() == {"sensitivity", "profiles"}  # nothing was reached
    assert measured.measured.family == trained.measured.family
    assert not measured.measured.compressed and small.measured.compressed
    assert same(weights(tmp_path, trained), weights(tmp_path, measured))
    assert measured.fidelity.kl == 0

    record = MemoryRecord()
    record.stages = list(first)
    again = run(tmp_path, spec(TRAIN, SENSITIVITY, {"mixed_precision": {"budget": 6.5}}), record)
    assert [stage.reused for stage in again] == [True, True, True, False]
    assert not [message for _, message in record.events if message.startswith("most sensitive")]
    large = again[3].measured
    assert large.size_bytes > small.measured.size_bytes
    predicted = [stage.details["allocation"]["rows"][0]["predicted"] for stage in (small.measured, large)]
    assert predicted[1] < predicted[0]


def test_a_step_that_only_measures_is_no_family():
    steps = [StepSpec.model_validate(step) for step in ({"wanda": {}}, SENSITIVITY)]
    assert stage_family([bound for _, bound in bound_steps(steps, "recipe")], SOURCE) == "pruning"
