"""Runs of a sentence encoder: scored pairs, texts alone, and which reference a score is taken against."""

import json

import pytest
import torch
from safetensors.torch import load_file

from core.artifacts.store import ArtifactStore
from core.engine.pipeline import check, execute
from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.measure.memory import Reload
from core.measure.stage import StageMeasurer
from core.measured import FoundRun
from core.settings import settings
from core.spec.model import RunSpec
from tests.core.sentences import save_encoder, save_pairs, save_texts


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_DATA", str(tmp_path))
    settings.cache_clear()
    save_encoder(tmp_path / "encoder")
    save_encoder(tmp_path / "other", seed=1)
    save_pairs(tmp_path)
    save_texts(tmp_path)
    monkeypatch.setattr("core.measure.memory.reload", lambda *_, **__: Reload(0.0, 1.0, 1.0, 1))
    monkeypatch.setattr(StageMeasurer, "_latencies", lambda *_: [])
    yield tmp_path
    settings.cache_clear()


def spec(file: str, *recipe: object, **changes: object) -> RunSpec:
    task = {"source": f"file:{file}", "kind": "embeddings", "test": 0.4}
    return RunSpec.parse({"model": "hf:encoder", "task": task, "recipe": list(recipe), **changes})


def run(folder, asked: RunSpec, record: MemoryRecord | None = None):
    check(asked)
    artifacts = ArtifactStore(str(folder / "artifacts"), folder)
    return execute(asked, record or MemoryRecord(), artifacts=artifacts)


RTN = {"rtn": {"bits": 3}}


def test_scored_pairs_are_scored_by_ranks_and_compared_with_the_reference(folder):
    source, coarse = run(folder, spec("pairs.csv", RTN))
    assert source.measured.score_name == "Spearman correlation"
    assert source.measured.score_low < source.measured.score < source.measured.score_high
    assert coarse.comparison.low < coarse.comparison.delta < coarse.comparison.high
    fidelity = coarse.fidelity
    assert fidelity.kl is None and fidelity.flips is None
    assert fidelity.cosine_min < fidelity.cosine_low < fidelity.cosine < fidelity.cosine_high < 1
    assert 0 < fidelity.neighbours_kept < 100
    examples = load_file(folder / "artifacts" / coarse.artifact / "examples.safetensors")
    assert set(examples) == {"similarity", "score"} and len(examples["score"]) == 32


def test_texts_alone_are_scored_by_their_cosine_with_the_reference(folder):
    source, fine, coarse = run(folder, spec("texts.txt", {"rtn": {"bits": 8}}, {"cast": {"dtype": "bf16"}}))
    assert source.measured.score_name == "cosine with the reference"
    assert source.measured.score == 100 and source.fidelity is None
    assert fine.measured.score == pytest.approx(100 * fine.fidelity.cosine, abs=1e-4)
    assert fine.measured.score < 100 and coarse.measured.score < 100
    assert coarse.comparison.delta == pytest.approx(coarse.measured.score - 100)
    (mistakes,) = (folder / "artifacts" / coarse.artifact).glob("mistakes-*.json")
    worst, *others = json.loads(mistakes.read_text())
    assert worst["unit"] == "1 - cosine" and worst["reference_nats"] == 0
    assert worst["nats"] >= max(item["nats"] for item in others) and worst["text"]


def test_stages_scored_against_another_reference_have_keys_of_their_own(folder):
    by_default = run(folder, spec("texts.txt", RTN))
    against_other = run(folder, spec("texts.txt", RTN, reference="hf:other"))
    against_itself = run(folder, spec("texts.txt", RTN, reference="stage:1"))
    scores = {stage.measured.key: stage.measured.score for stage in (*by_default, *against_other, *against_itself)}
    assert len(scores) == 6
    assert against_other[0].measured.score < 100 and against_itself[1].measured.score == 100
    assert against_other[0].fidelity.cosine == pytest.approx(against_other[0].measured.score / 100, abs=1e-6)
    weights = [load_file(folder / "artifacts" / stages[1].artifact / "model.safetensors") for stages in
               (by_default, against_other, against_itself)]  # fmt: skip
    for other in weights[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights[0].items())


def test_keys_of_scored_pairs_do_not_depend_on_the_reference(folder):
    keys = [
        [stage.measured.key for stage in run(folder, spec("pairs.csv", RTN, **changes))]
        for changes in ({}, {"reference": "hf:other"})
    ]
    assert keys[0] == keys[1]


class KnowsOneRun(MemoryRecord):
    """A record in which run 7 is finished."""

    def __init__(self, stages):
        super().__init__()
        self.stages = list(stages)
        self.found = FoundRun(stages[-1].measured.key, stages[0].measured.key)

    def find_run(self, run_id):
        return self.found if run_id == 7 else None


def test_a_run_that_goes_on_from_another_is_scored_against_that_ones_reference(folder):
    earlier = run(folder, spec("texts.txt", RTN))
    resumed = run(folder, spec("texts.txt", {"cast": {"dtype": "bf16"}}, model="run:7"), KnowsOneRun(earlier))
    assert resumed[0].measured.score == pytest.approx(earlier[1].measured.score)
    assert resumed[1].measured.score < 100
    assert {stage.reference_key for stage in resumed} == {earlier[0].measured.key}


def test_a_run_of_classification_cannot_go_on_with_embeddings(folder):
    earlier = run(folder, spec("pairs.csv"))
    digits = RunSpec.parse({"model": "run:7", "task": "builtin:digits"})
    with pytest.raises(SpecError, match="was made for another kind of task"):
        run(folder, digits, KnowsOneRun(earlier))
