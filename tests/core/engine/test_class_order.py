"""A run's model, its reference and its teachers answer in the order of the data's classes."""

import json

import pytest
import torch
import transformers

from core.artifacts import artifact
from core.artifacts.store import ArtifactStore
from core.engine import pipeline
from core.engine.recording import MemoryRecord
from core.engine.stage_plan import StagePlanner
from core.errors import SpecError
from core.integrity import MANIFEST
from core.measure import score
from core.measured import FoundRun
from core.spec.model import ModelSpec, RunSpec
from core.tasks.base import Kind
from tests.core.models.conftest import TEXT, Shape, data_folder, tokenizer
from tests.core.tasks.pictures import save_picture

__all__ = ["data_folder"]

MEASURE = {"repeats": 5, "memory": False}


def save_always(folder, names, winner):
    """A classifier that always answers `winner`."""
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    config = transformers.BertConfig(intermediate_size=48, max_position_embeddings=64, **labels, **TEXT)
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.bias[names.index(winner)] = 5.0
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@pytest.fixture
def reviews(data_folder):
    """60 texts, of which nine in ten are "pos"."""
    texts = [f"{'ab'[i % 2]} {'cdefghij'[i % 8]} {'klmnop'[i % 6]}{'a' * (i % 7)}" for i in range(60)]
    rows = [f"{text},{'neg' if i % 10 == 0 else 'pos'}" for i, text in enumerate(texts)]
    (data_folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return data_folder


def test_model_reference_and_teacher_are_matched_by_name(reviews, tmp_path):
    save_always(reviews / "model", ["pos", "neg"], "pos")
    save_always(reviews / "teacher", ["pos", "neg"], "neg")
    distil = {"distill_logits": {"teacher": "hf:teacher", "alpha": 1.0}}
    asked = RunSpec.parse(
        {
            "model": "hf:model",
            "task": "file:reviews.csv",
            "reference": "hf:teacher",
            "recipe": [
                {"train": {"steps": 60, "batch_size": 16, "evaluations": 0, "learning_rate": 3e-2, "methods": [distil]}}
            ],
            "measure": MEASURE,
        }
    )
    store = ArtifactStore(str(tmp_path / "artifacts"), tmp_path)
    execution = pipeline.Execution(asked, MemoryRecord(), store, torch.device("cpu"), None)
    reference, at = execution.planner.target(execution.main, asked.reference)
    folders = [execution.realize(reference, at), *(execution.realize(execution.main, n) for n in (0, 1))]
    answers, model, taught = (accuracy(folder, execution.task) for folder in folders)
    assert answers < 50 < 80 < model  # the reference always answers neg, the model pos, and nine in ten are pos
    assert taught == answers


def accuracy(folder, task):
    model = artifact.load_models(folder)["main"]
    return score.principal(task, score.evaluate(model, task, device=torch.device("cpu")))


class OneRun(MemoryRecord):
    """Run 7 is finished."""

    def find_run(self, run_id):
        return FoundRun(self.stages[-1].measured.key, self.stages[-1].measured.key) if run_id == 7 else None


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """Artifacts and stages of a run on digits."""
    folder = tmp_path_factory.mktemp("earlier")
    record, store = OneRun(), ArtifactStore(str(folder), folder)
    model = {"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 2}
    recipe = [{"train": {"steps": 2, "batch_size": 8, "evaluations": 0}}, {"magnitude_pruning": {"sparsity": 0.5}}]
    asked = {"model": model, "task": "builtin:digits", "recipe": recipe, "measure": {**MEASURE, "test_examples": 16}}
    pipeline.execute(RunSpec.parse(asked), record, artifacts=store)
    return store, record.stages


def planner_of(earlier, class_names):
    store, stages = earlier
    record = OneRun()
    record.stages = list(stages)
    task = Shape("file:digits", Kind.IMAGE_CLASSIFICATION, 10, (1, 8, 8), class_names=tuple(class_names))
    asked = RunSpec.parse({"model": "run:7", "task": "builtin:digits"})
    return StagePlanner(asked, task, record, store, torch.device("cpu")), record


@torch.no_grad()
def test_an_earlier_run_is_put_in_the_order_of_the_new_data(earlier):
    store, stages = earlier
    planner, record = planner_of(earlier, map(str, reversed(range(10))))
    subject = planner.subject(ModelSpec(source="run:7"))
    batch = artifact.load_probe(store.open(stages[-1].measured.key))
    before = artifact.load_models(store.open(stages[-1].measured.key), working=True)["main"]
    torch.testing.assert_close(subject.model(**batch), before(**batch).flip(-1))
    assert record.events == []


def test_an_earlier_run_with_other_classes_is_refused_with_both_lists(earlier):
    planner, _ = planner_of(earlier, "abcdefghij")
    with pytest.raises(SpecError, match="0, 1, 2, 3, 4, 5, 6, 7, 8, 9, but the data has a, b, c"):
        planner.run(ModelSpec(source="run:7"))


def test_an_older_artifact_without_names_goes_by_number_with_a_note(earlier):
    store, stages = earlier
    file = store.open(stages[-1].measured.key) / MANIFEST
    manifest = json.loads(file.read_text())
    try:
        file.write_text(json.dumps({key: value for key, value in manifest.items() if key != "class_names"}))
        planner, record = planner_of(earlier, "abcdefghij")
        planner.subject(ModelSpec(source="run:7"))
        assert [level for level, _ in record.events] == ["info"] and "LABEL_0 = a" in record.events[0][1]
    finally:
        file.write_text(json.dumps(manifest))


def test_the_reference_of_a_run_on_other_data_is_not_used(earlier, data_folder):
    store, stages = earlier
    for name in range(10):
        for i in range(10):
            save_picture(data_folder / "digits" / str(name) / f"{i}.png", 10 * name + i)
    record = OneRun()
    record.stages = list(stages)
    spec = RunSpec.parse({"model": "run:7", "task": "file:digits", "measure": MEASURE})
    (stage,) = pipeline.execute(spec, record, artifacts=store)
    assert stage.reference_key is None and stage.comparison is None
    assert any("scored on other data" in message for _, message in record.events)
