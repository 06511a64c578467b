"""What every technique owes: it applies to real models, leaves them working, and its artifact reloads to the same."""

import pytest
import torch
from safetensors.torch import load_file

from core import models, tasks
from core.artifacts import artifact
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.integrity import PACKED
from core.measure import size
from core.spec.model import ModelSpec, StepSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import INTEGER_CODES, MASK, OneShot, TrainingMethod
from core.techniques.catalogue import TECHNIQUES, technique
from core.training.loop import Training
from tests.core.fakes import context
from tests.core.techniques.steps import SMALL, precede
from tests.core.training.test_loop import plan

SOURCES = {
    "vit": ({"source": "builtin:vit", "dim": 32, "depth": 2, "heads": 2}, {"source": "builtin:digits"}),
    "gpt": (
        {"source": "builtin:gpt", "dim": 32, "depth": 2, "heads": 2, "length": 32},
        {"source": "builtin:python-docs", "length": 32},
    ),
    "resnet": ({"source": "builtin:resnet", "depth": 8, "width": 8}, {"source": "builtin:digits"}),
}
SETTINGS = {
    "adaround": {"iterations": 4, "calibration_examples": 16},
    "autoround": {"iterations": 4, "calibration_examples": 16},
    "bigbird": {"block": 2, "random_blocks": 1},
    "block_local": {"block": 4, "every": 2},
    "etc": {"radius": 2, "global_tokens": 3, "max_distance": 2},
    "channel_permutation": {"strategy": "greedy_swap", "escapes": 5},
    "cofi": {"teacher": "stage:0"},
    "distill_logits": {"teacher": "stage:0"},
    "mixed_precision": SMALL["mixed_precision"],
    "ptq4vit": SMALL["ptq4vit"],
    "sensitivity": SMALL["sensitivity"],
    "train": {"steps": 2, "evaluations": 0},
    "kv_cache_quantization": {"group_size": 8, "window": 2},
    "low_rank_correction": {"rank": 2},
    "sliding_window": {"window": 8},
    "dynamic_vit": {"stages": 1},
}
SAVE_WORK = {
    "bigbird",
    "block_local",
    "etc",
    "gmlp",
    "kv_cache_quantization",
    "linear_attention",
    "mlp_mixer",
    "sliding_window",
    "sparse_ffn",
    "token_merging",
}  # as many bytes, fewer multiply-accumulates
ONE_SHOTS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, OneShot)]
ALL_METHODS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, TrainingMethod)]
METHODS = [name for name in ALL_METHODS if INTEGER_CODES not in TECHNIQUES[name].accepts]  # on a model as it is loaded
PACKING = [name for name in METHODS if INTEGER_CODES in TECHNIQUES[name].leaves]


@pytest.fixture(scope="module")
def prepared():
    """A prepared task and a loaded model by name, loaded once."""
    cache = {}

    def make(name: str) -> tuple[Subject, models.Loaded]:
        if name not in cache:
            model_spec, task_spec = SOURCES[name]
            task = tasks.load(TaskSpec.model_validate(task_spec))
            described = models.describe(ModelSpec.model_validate(model_spec), task)
            task.prepare(described.input_format)
            cache[name] = (task, ModelSpec.model_validate(model_spec))
        task, model_spec = cache[name]
        loaded = models.load(model_spec, task, torch.Generator().manual_seed(0))
        return Subject({"main": loaded.module}, task, {"main": loaded.config}), loaded

    return make


def bound(name: str):
    return technique(StepSpec(technique=name, settings=SETTINGS.get(name, {})), "recipe[0]")


def answers(model: torch.nn.Module, subject: Subject) -> torch.Tensor:
    with torch.inference_mode():
        return logits_of(model, artifact.probe_batch(subject.task))


def applied(name: str, source: str, prepared) -> tuple[Subject, models.Loaded]:
    subject, loaded = prepared(source)
    step = bound(name)
    try:
        precede(step, subject)
        step.check(subject)
    except SpecError as error:
        pytest.skip(f"refused with its reason: {error}")
    step.apply(subject, context(subject))
    return subject, loaded


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ONE_SHOTS)
def test_a_step_leaves_a_model_that_answers_and_whose_artifact_reloads_to_the_same(name, source, prepared, tmp_path):
    subject, loaded = applied(name, source, prepared)
    expected = answers(subject.model, subject)
    assert torch.isfinite(expected).all()
    artifact.save(subject, tmp_path, loaded)
    reloaded = answers(artifact.load_models(tmp_path)["main"], subject)
    stored = load_file(tmp_path / artifact.PROBE)["output"]
    assert torch.equal(reloaded, stored)
    assert torch.allclose(reloaded, expected, atol=2e-2 * float(expected.abs().max()))
    again = artifact.load_subject(tmp_path, subject.task, torch.device("cpu"))
    assert again.constraints.keys() == subject.constraints.keys()
    assert torch.allclose(answers(again.model, subject), expected, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in ONE_SHOTS if TECHNIQUES[n].compresses and n not in SAVE_WORK])
def test_what_compresses_makes_the_artifact_smaller(name, prepared, tmp_path):
    subject, loaded = prepared("vit")
    artifact.save(subject, tmp_path / "before", loaded)
    subject, loaded = applied(name, "vit", prepared)
    artifact.save(subject, tmp_path / "after", loaded)
    before, after = (size.tensor_payload(tmp_path / part / PACKED) for part in ("before", "after"))
    assert after < 0.95 * before


@pytest.mark.parametrize("name", ONE_SHOTS)
def test_a_step_leaves_what_it_says(name, prepared):
    subject, _ = applied(name, "vit", prepared)
    masked = any(constraint.kind == "mask" for constraint in subject.constraints.values())
    assert masked == (MASK in TECHNIQUES[name].leaves)
    state = subject.model.state_dict()
    packed = any(not p.is_floating_point() for name, p in state.items() if not name.endswith("random_blocks"))
    assert packed == (INTEGER_CODES in TECHNIQUES[name].leaves)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_resumes_and_leaves_the_model_plain(name, prepared, tmp_path):
    subject, _ = prepared("vit")
    names = dict(subject.model.named_parameters()).keys()
    method = bound(name)
    method.check(subject)
    record = MemoryRecord()
    Training(subject, context(subject, record), plan(steps=4, batch_size=8), [method]).run()
    left = {n for n, _ in subject.model.named_parameters() if ".predictor." not in n}  # dynamic_vit's stay
    assert left == names or (name in PACKING and not any("parametrizations" in n for n in left))
    assert torch.isfinite(answers(subject.model, subject)).all()
    for fqn, constraint in subject.constraints.items():
        weight = subject.model.get_parameter(fqn.removeprefix("main."))
        assert (weight[~constraint.tensor.bool()] == 0).all()


@pytest.mark.parametrize("source", ["vit", "gpt"])
@pytest.mark.parametrize("name", PACKING)
def test_a_method_that_packs_leaves_a_smaller_artifact_that_reloads_to_the_same(name, source, prepared, tmp_path):
    subject, loaded = prepared(source)
    artifact.save(subject, tmp_path / "before", loaded)
    Training(subject, context(subject), plan(steps=2, batch_size=8), [bound(name)]).run()
    expected = answers(subject.model, subject)
    artifact.save(subject, tmp_path / "after", loaded)
    stored = load_file(tmp_path / "after" / artifact.PROBE)["output"]
    assert torch.equal(answers(artifact.load_models(tmp_path / "after")["main"], subject), stored)
    assert torch.allclose(stored, expected, atol=1e-4 * float(expected.abs().max()))
    again = artifact.load_subject(tmp_path / "after", subject.task, torch.device("cpu"))
    assert torch.allclose(answers(again.model, subject), expected, atol=1e-5)
    before, after = (size.tensor_payload(tmp_path / part / PACKED) for part in ("before", "after"))
    assert after < 0.6 * before


@pytest.mark.parametrize("later", [n for n in ONE_SHOTS if INTEGER_CODES not in TECHNIQUES[n].refuses])
def test_masks_survive_every_later_step(later, prepared):
    subject, _ = applied("nm_pruning", "vit", prepared)
    if MASK in TECHNIQUES[later].refuses or later == "sliding_window":
        pytest.skip("refused, or it swaps other modules")
    masks = {fqn.removeprefix("main."): c.tensor.bool() for fqn, c in subject.constraints.items()}
    step = bound(later)
    try:
        step.check(subject)
    except SpecError as error:
        pytest.skip(f"refused with its reason: {error}")
    step.apply(subject, context(subject))
    layers = dict(subject.model.named_modules())
    for fqn, mask in masks.items():
        module = layers.get(fqn.rpartition(".")[0])
        if module is None:  # taken out with its block
            continue
        own = subject.mask(fqn)  # cut, or moved, with its weights
        mask = mask if own is None else own
        assert 0.3 < mask.float().mean() < 0.7, fqn
        weight = module.weight() if callable(module.weight) else module.weight
        assert (weight[~mask] == 0).all(), fqn


@pytest.mark.parametrize("later", [name for name in METHODS if name not in ("sr_ste", "top_kast", "rigl")])
def test_masks_survive_every_training_but_those_that_choose_anew(later, prepared):
    if MASK in TECHNIQUES[later].refuses:
        pytest.skip("refused")
    subject, _ = applied("nm_pruning", "vit", prepared)
    masks = {fqn.removeprefix("main."): c.tensor for fqn, c in subject.constraints.items()}
    method = bound(later)
    Training(subject, context(subject), plan(steps=4, batch_size=8), [method]).run()
    assert len(subject.constraints) == (0 if later in PACKING else len(masks))
    for fqn, mask in masks.items():
        if later in PACKING:
            weight = subject.model.get_submodule(fqn.removesuffix(".weight")).weight()
        else:  # cut with its weights by cofi
            weight, mask = subject.model.get_parameter(fqn), subject.mask(fqn)
        assert mask.float().mean() < 0.6
        assert not weight[~mask].any()


@pytest.mark.parametrize("name", TECHNIQUES)
def test_settings_that_do_not_exist_are_refused_with_their_name(name):
    with pytest.raises(SpecError, match="no_such_setting"):
        technique(StepSpec(technique=name, settings={"no_such_setting": 1}), "recipe[0]")
