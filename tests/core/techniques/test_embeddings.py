"""Every technique takes a sentence encoder, or refuses it with the reason, with scored pairs and with texts alone."""

import pytest
import torch
from safetensors.torch import load_file

from core import models, tasks
from core.artifacts import artifact
from core.errors import SpecError
from core.settings import settings
from core.spec.model import ModelSpec, StepSpec, TaskSpec
from core.subject import Subject
from core.tasks.base import logits_of
from core.technique import OneShot
from core.techniques.catalogue import TECHNIQUES, technique
from core.training.loop import Training
from tests.core.fakes import context
from tests.core.sentences import save_encoder, save_pairs, save_texts
from tests.core.techniques.steps import SMALL, precede
from tests.core.training.test_loop import plan

ONE_SHOTS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, OneShot)]
METHODS = [name for name, cls in TECHNIQUES.items() if not issubclass(cls, OneShot)]
SETTINGS = {**SMALL, "head_pruning": {}, "train": {"steps": 2, "evaluations": 0}, "cast": {"dtype": "bf16"}}
TAUGHT = ("cofi", "distill_logits")
FOR_A_BERT = {  # those that a BERT with a head takes: a sentence encoder must not be refused
    "cast",
    "channel_permutation",
    "depth_pruning",
    "dynamic_int8",
    "ffn_pruning",
    "head_pruning",
    "magnitude_pruning",
    "nm_pruning",
    "rtn",
    "sparsegpt",
    "svd",
    "train",
    "wanda",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    save_encoder(folder / "encoder")
    save_pairs(folder)
    save_texts(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLIMBOARD_DATA", str(folder))
        settings.cache_clear()
        yield folder
    settings.cache_clear()


def subject_of(file: str) -> tuple[Subject, models.Loaded]:
    task = tasks.load(TaskSpec.model_validate({"source": f"file:{file}", "kind": "embeddings"}))
    loaded = models.load(ModelSpec(source="hf:encoder"), task, torch.Generator())
    task.prepare(loaded.input_format)
    return Subject({"main": loaded.module}, task, {"main": loaded.config}, loaded.trained), loaded


def bound(name: str):
    extra = {"teacher": "stage:0"} if name in TAUGHT else {}
    return technique(StepSpec(technique=name, settings={**SETTINGS.get(name, {}), **extra}), "recipe[0]")


def answers(subject: Subject, model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return logits_of(model, artifact.probe_batch(subject.task))


@pytest.mark.parametrize("name", ONE_SHOTS)
@pytest.mark.usefixtures("folder")
def test_a_step_leaves_an_encoder_whose_artifact_embeds_the_same(name, tmp_path):
    subject, loaded = subject_of("pairs.csv")
    step = bound(name)
    precede(step, subject)
    try:
        step.check(subject)
    except SpecError as error:
        if name in FOR_A_BERT:
            raise
        pytest.skip(f"refused with its reason: {error}")
    step.apply(subject, context(subject))
    expected = answers(subject, subject.model)
    assert expected.shape[:2] == (4, 2)
    assert torch.isfinite(expected).all()
    artifact.save(subject, tmp_path, loaded)
    reloaded = answers(subject, artifact.load_models(tmp_path)["main"])
    assert torch.equal(reloaded, load_file(tmp_path / artifact.PROBE)["output"])
    assert torch.allclose(reloaded, expected, atol=2e-2 * float(expected.abs().max()))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("folder")
def test_a_method_trains_on_scored_pairs(name):
    subject, _ = subject_of("pairs.csv")
    method = bound(name)
    try:
        method.check(subject)
    except SpecError as error:
        pytest.skip(f"refused with its reason: {error}")
    Training(subject, context(subject), plan(steps=3, batch_size=8), [method]).run()
    assert torch.isfinite(answers(subject, subject.model)).all()


@pytest.mark.parametrize("name", [*TAUGHT, "train", "head_pruning"])
@pytest.mark.usefixtures("folder")
def test_what_needs_labels_is_refused_in_words_for_texts_alone(name):
    subject, _ = subject_of("texts.txt")
    with pytest.raises(SpecError, match=r"no loss to train on|imitates a teacher's predictions"):
        bound(name).check(subject)


@pytest.mark.usefixtures("folder")
def test_training_on_scores_brings_the_cosines_of_pairs_nearer_to_them():
    subject, _ = subject_of("pairs.csv")
    split = subject.task.split("train")
    batch = split.batch(torch.arange(len(split)))

    def loss() -> float:
        with torch.no_grad():
            return float(subject.task.loss(logits_of(subject.model, batch), batch))

    before = loss()
    Training(subject, context(subject), plan(steps=20, batch_size=16), []).run()
    assert loss() < 0.8 * before
