"""A whole recipe: permute, prune to 2:4, train sparsely with a teacher, then integers; its masks hold to the end."""

import pytest
import torch

from core.algorithms.masks import prunable_weights
from core.artifacts.artifact import load_models, load_subject
from core.artifacts.store import ArtifactStore
from core.engine.pipeline import execute
from core.engine.recording import MemoryRecord
from core.nn.sparse_linear import SparseLinear
from core.spec.model import RunSpec, TaskSpec
from core.tasks import load as load_task

METHODS = [{"sr_ste": {"n": 2, "m": 4}}, {"distill_logits": {"teacher": "stage:1"}}]
STEPS = [
    {"train": {"steps": 8, "batch_size": 32, "evaluations": 0}},
    {"channel_permutation": {"strategy": "greedy_swap", "escapes": 5}},
    {"nm_pruning": {"n": 2, "m": 4}},
    {"train": {"steps": 6, "batch_size": 32, "evaluations": 0, "methods": METHODS}},
]
PERMUTED, PRUNED, SPARSE, LAST = 2, 3, 4, 5


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same steps with either way to integers at their end."""
    folder, record = tmp_path_factory.mktemp("permuted"), MemoryRecord()

    def run(last):
        spec = RunSpec.parse(
            {
                "model": {"source": "builtin:vit", "dim": 64, "depth": 1, "heads": 2},
                "task": "builtin:digits",
                "recipe": [*STEPS, last],
                "measure": {"repeats": 5, "test_examples": 64, "memory": False},
            }
        )
        return execute(spec, record, artifacts=ArtifactStore(str(folder), folder))

    return folder, {"dynamic_int8": run({"dynamic_int8": {}}), "rtn": run({"rtn": {"bits": 8}})}


def subject_of(runs, position):
    folder, stages = runs
    return load_subject(
        folder / stages["rtn"][position].artifact, load_task(TaskSpec(source="builtin:digits")), torch.device("cpu")
    )


def test_the_permuted_stage_answers_as_the_one_before_it(runs):
    _, stages = runs
    before, after = (stages["rtn"][i].measured for i in (1, PERMUTED))
    assert after.score == before.score and not after.compressed
    assert {row["part"] for row in after.details["layers"]} == {"ffn", "values"}


def test_masks_are_two_of_four_and_hold_through_every_later_step(runs):
    pruned, sparse, last = subject_of(runs, PRUNED), subject_of(runs, SPARSE), {}
    for name in ("dynamic_int8", "rtn"):
        last[name] = load_models(runs[0] / runs[1][name][LAST].artifact)["main"]
    for name in prunable_weights(sparse.model):
        mask = sparse.mask(name)
        for two_of_four in (mask, pruned.mask(name)):
            assert (two_of_four.view(-1, 4).sum(1) == 2).all()
        for model in last.values():
            assert not model.get_submodule(name.removesuffix(".weight")).weight()[~mask].any()


def test_sparse_training_takes_the_masks_over_and_trains_under_them(runs):
    pruned, sparse = subject_of(runs, PRUNED), subject_of(runs, SPARSE)
    overlaps = []
    for name, weight in prunable_weights(sparse.model).items():
        assert not torch.equal(weight, pruned.model.get_parameter(name))
        overlaps.append(float((pruned.mask(name) & sparse.mask(name)).sum() / pruned.mask(name).sum()))
    assert min(overlaps) > 0.8  # it began from them, and a few updates moved only some


def test_sparse_stages_are_packed_and_reload_to_the_same(runs):
    folder, stages = runs
    for position in (PRUNED, SPARSE):
        packed = load_models(folder / stages["rtn"][position].artifact)["main"]
        assert sum(isinstance(module, SparseLinear) for module in packed.modules()) == 6
    computed = [*stages["rtn"][1:], stages["dynamic_int8"][LAST]]
    assert [stage.measured.reload_max_error for stage in computed] == [0] * 6
