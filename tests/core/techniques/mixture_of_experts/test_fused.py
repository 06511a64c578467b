"""Experts that transformers keeps fused are reached by every step that works on weight matrices."""

import pytest
import torch

from core.artifacts import artifact
from core.measure.compute import count_weights
from core.measure.reach import Snapshot
from core.tasks.base import logits_of
from core.techniques.low_rank.svd import Svd
from core.techniques.pruning.magnitude_pruning import MagnitudePruning
from core.techniques.pruning.nm_pruning import NmPruning
from core.techniques.pruning.sparsegpt import Sparsegpt
from core.techniques.pruning.wanda import Wanda
from core.techniques.quantization.cast import Cast
from core.techniques.quantization.dynamic_int8 import DynamicInt8
from core.techniques.quantization.rtn import Rtn
from tests.core.fakes import context
from tests.core.techniques.pruning.families import loaded, subject_of

STEPS = {
    "rtn": Rtn(bits=4),
    "dynamic_int8": DynamicInt8(),
    "cast": Cast(),
    "svd": Svd(kept=0.5),
    "magnitude_pruning": MagnitudePruning(sparsity=0.5),
    "nm_pruning": NmPruning(n=2, m=4),
    "wanda": Wanda(sparsity=0.5, calibration_examples=8),
    "sparsegpt": Sparsegpt(sparsity=0.5, bits=4, calibration_examples=8),
}
PRUNED = ("magnitude_pruning", "nm_pruning", "wanda", "sparsegpt")


@pytest.mark.parametrize("name", STEPS)
def test_a_step_reaches_all_experts_and_its_artifact_answers_the_same(name, tmp_path):
    subject, step = subject_of("mixtral", depth=1), STEPS[name]
    before = Snapshot(subject)
    step.check(subject)
    step.apply(subject, context(subject))
    found = before.compare()
    missed = {module["kind"] for module in found["missed"]}
    assert missed <= {"Embedding", "Linear", "MixtralTopKRouter", "MixtralRMSNorm"}  # the head, no layer of a block
    assert found["share"] > 0.75
    if name in PRUNED:
        assert count_weights(subject.model).sparsity > 0.35
    batch = subject.task.batch(torch.arange(4))
    with torch.no_grad():
        expected = logits_of(subject.model, batch).float()
    artifact.save(subject, tmp_path, loaded(subject))
    with torch.no_grad():
        found = logits_of(artifact.load_models(tmp_path)["main"], batch).float()
    torch.testing.assert_close(found, expected, atol=1e-4 if name != "cast" else 0.05, rtol=1e-3)
