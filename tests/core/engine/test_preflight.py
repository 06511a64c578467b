"""Mistakes that only the models can tell are told before anything is computed, with field, value and remedy."""

import pytest
import torch
import transformers

from core.artifacts.store import ArtifactStore
from core.engine.pipeline import check, execute
from core.engine.recording import MemoryRecord
from core.engine.stage_plan import StagePlanner
from core.errors import SpecError
from core.measured import FoundRun
from core.spec.model import RunSpec
from core.tasks.base import Kind
from core.training.loop import Training
from tests.core.models.conftest import IMAGE, TEXT, Shape, data_folder, tokenizer

__all__ = ["data_folder"]

VIT = {"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 2}
ODD = {"source": "builtin:vit", "dim": 18, "depth": 1, "heads": 2}
RESNET = {"source": "builtin:resnet", "depth": 8, "width": 4}
GPT = {"source": "builtin:gpt", "dim": 16, "depth": 1, "heads": 2, "length": 32}
MARKOV = {"source": "builtin:markov", "length": 64}


def train(*methods, **settings):
    return {"train": {"steps": 2, "batch_size": 8, "evaluations": 0, **settings, "methods": list(methods)}}


def distil(teacher):
    return train({"distill_logits": {"teacher": teacher}})


def spec(*recipe, model=VIT, task="builtin:digits", **more):
    return RunSpec.parse({"model": model, "task": task, "recipe": list(recipe), **more})


METHOD = "recipe[0].train.methods[0]"
TEACHER = f"{METHOD}.distill_logits.teacher"
MISTAKES = {
    "n is not below m": (spec(train({"sr_ste": {"n": 4, "m": 4}})), f"{METHOD}.sr_ste.n", 4, "must be less than m"),
    "m does not divide": (spec({"nm_pruning": {"m": 4}}, model=ODD), "recipe[0].nm_pruning.m", 4, "not divide the 18"),
    "m of a method": (spec(train("sr_ste"), model=ODD), f"{METHOD}.sr_ste.m", 4, "does not divide the 18"),
    "no attention": (
        spec("sliding_window", model=RESNET), "recipe[0].sliding_window.model", "Resnet", "has no attention",
    ),
    "rank saves nothing": (spec({"svd": {"rank": 64}}), "recipe[0].svd.rank", 64, "does not reduce any layer"),
    "another kind of model": (spec(model=GPT), "model.source", "builtin:gpt", "is for language modelling"),
    "setting of a method": (spec(train({"sr_ste": {"n": 40}})), f"{METHOD}.sr_ste.n", 40, "less than or equal to 31"),
    "step as a method": (spec(train("rtn")), METHOD, "rtn", "is a step, not a training method"),
    "timed length": (spec(model=GPT, task=MARKOV, measure={"length": 33}), "measure.length", 33, "of 32 tokens"),
    "timed length of a step": (
        spec("gmlp", model={**GPT, "positions": "rotary"}, task=MARKOV, measure={"length": 33}),
        "measure.length", 33, "of 32 tokens",
    ),
    "folder outside": (spec(model="hf:/etc/llama"), "model.source", "hf:/etc/llama", "neither a folder in the server"),
    "teacher of another kind": (spec(distil(GPT)), f"{TEACHER}.source", "builtin:gpt", "is for language modelling"),
    "teacher's setting": (spec(distil({**VIT, "heads": 5})), f"{TEACHER}.heads", 5, "does not divide dim 16"),
    "teacher's recipe": (
        spec(distil({**ODD, "recipe": [{"nm_pruning": {"m": 4}}]})),
        f"{TEACHER}.recipe[0].nm_pruning.m", 4, "does not divide the 18",
    ),
    "reference's setting": (spec(reference={**VIT, "heads": 5}), "reference.heads", 5, "does not divide dim 16"),
    "reference's recipe": (
        spec(reference={**VIT, "recipe": [train({"sr_ste": {"n": 4}})]}),
        "reference.recipe[0].train.methods[0].sr_ste.n", 4, "must be less than m",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_field_value_and_remedy_before_anything_is_computed(name, tmp_path, monkeypatch):
    asked, field, value, words = MISTAKES[name]
    with pytest.raises(SpecError) as caught:
        check(asked)
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == (field, value)
    assert words in problem.message and problem.remedy
    monkeypatch.setattr(StagePlanner, "source", None)  # not even a model's weights are made
    with pytest.raises(SpecError) as again:
        execute(asked, MemoryRecord(), artifacts=ArtifactStore(str(tmp_path), tmp_path))
    assert again.value.problems == caught.value.problems


@pytest.fixture
def checkpoints(data_folder):
    """Folders with an image model of 7 classes, a language model, and one whose weights are pickled."""
    torch.manual_seed(0)
    seven = transformers.ViTConfig(**{**IMAGE, "num_labels": 7, "num_hidden_layers": 1})
    transformers.ViTForImageClassification(seven).save_pretrained(data_folder / "seven")
    letters = transformers.GPT2Config(n_positions=64, **{**TEXT, "num_hidden_layers": 1})
    transformers.GPT2LMHeadModel(letters).save_pretrained(data_folder / "letters")
    tokenizer().save_pretrained(data_folder / "letters")
    (data_folder / "pickled").mkdir()
    (data_folder / "pickled" / "config.json").write_text((data_folder / "seven" / "config.json").read_text())
    (data_folder / "pickled" / "pytorch_model.bin").write_bytes(b"")


LETTERS = {"source": "hf:letters", "length": 16}
CHECKPOINT_MISTAKES = {
    "no safetensors": (spec(model="hf:pickled"), "model.source", "only pytorch_model.bin, a format that can run code"),
    "other classes": (spec(model="hf:seven"), "model.source", "has 7 classes, but builtin:digits has 10"),
    "teacher of other classes": (spec(distil("hf:seven")), f"{TEACHER}.source", "7 classes, but builtin:digits has 10"),
    "too long": (spec(model={**LETTERS, "length": 65}, task=MARKOV), "model.length", "maximum of 64 tokens"),
    "timed too long": (
        spec(model=LETTERS, task=MARKOV, measure={"length": 65}), "measure.length", "maximum of 64 tokens",
    ),
    "teacher of other tokens": (spec(distil(LETTERS), model=GPT, task=MARKOV), f"{TEACHER}.source", "of 22 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINT_MISTAKES)
def test_a_checkpoint_that_does_not_fit_is_refused_from_its_small_files(name, checkpoints):
    asked, field, words = CHECKPOINT_MISTAKES[name]
    with pytest.raises(SpecError) as caught:
        check(asked)
    (problem,) = caught.value.problems
    assert problem.field == field and words in problem.message and problem.remedy


FITTING = [
    spec("sliding_window"),
    spec({"nm_pruning": {"indivisible": "skip"}}, "cast", model=ODD),
    spec(distil({**VIT, "recipe": [train()]}), reference={**VIT, "depth": 2, "recipe": [train("sr_ste")]}),
    spec(train(), distil("stage:1")),
    spec(train({"sr_ste": {"n": 1, "m": 4}}), model="run:7"),
    spec(model={**GPT, "positions": "rotary"}, task=MARKOV, measure={"length": 100}),
]


@pytest.mark.parametrize("asked", FITTING)
def test_what_fits_passes(asked):
    check(asked)


def test_every_mistake_is_told_at_once():
    with pytest.raises(SpecError) as caught:
        check(spec("rtm", train({"sr_ste": {"n": 40}}), model={**VIT, "heads": 5}, reference=GPT))
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["model.heads", "recipe[0]", "recipe[1].train.methods[0].sr_ste.n", "reference.source"]


class OneRun(MemoryRecord):
    """Run 7 is finished."""

    def find_run(self, run_id):
        key = self.stages[-1].measured.key
        return FoundRun(key, key) if run_id == 7 else None


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """Artifacts and stages of a run on digits."""
    folder = tmp_path_factory.mktemp("earlier")
    record, store = OneRun(), ArtifactStore(str(folder), folder)
    execute(spec(model=ODD, measure={"repeats": 5, "memory": False, "test_examples": 16}), record, artifacts=store)
    return store, record.stages


SHAPES = "reads images of 8 x 8 pixels, but builtin:shapes has 32 x 32"
FROM_RUN_7 = {
    "other size": (spec(model="run:7", task="builtin:shapes"), "model.source", SHAPES),
    "other kind": (spec(model="run:7", task=MARKOV), "model.source", "another kind of task"),
    "teacher": (spec(distil("run:7"), task="builtin:shapes"), f"{TEACHER}.source", SHAPES),
    "reference": (spec(reference="run:7", task="builtin:shapes"), "reference.source", SHAPES),
    "no such run": (spec(distil("run:8")), f"{TEACHER}.source", "is not a finished run"),
    "later step": (spec(train(), "nm_pruning", model="run:7"), "recipe[1].nm_pruning.m", "does not divide the 18"),
}


@pytest.mark.parametrize("name", FROM_RUN_7)
def test_an_earlier_run_that_does_not_fit_is_refused_before_anything_is_computed(name, earlier, monkeypatch):
    asked, field, words = FROM_RUN_7[name]
    store, stages = earlier
    record = OneRun()
    record.stages = list(stages)
    monkeypatch.setattr(Training, "run", None)
    with pytest.raises(SpecError) as caught:
        execute(asked, record, artifacts=store)
    (problem,) = caught.value.problems
    assert problem.field == field and words in problem.message and problem.remedy
    assert record.stages == stages


def test_an_earlier_run_with_other_classes_is_refused(earlier):
    store, stages = earlier
    nine = Shape("file:nine", Kind.IMAGE_CLASSIFICATION, n_classes=9, image_shape=(1, 8, 8))
    record = OneRun()
    record.stages = list(stages)
    asked = spec(model="run:7")
    with pytest.raises(SpecError, match=r"model.source = 'run:7': predicts 10 classes, but file:nine has 9"):
        StagePlanner(asked, nine, record, store, torch.device("cpu")).source(asked.model)
