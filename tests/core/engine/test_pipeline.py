"""The pipeline: stages, keys, reuse, references, resumption. One small model, a few updates."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.artifacts import artifact
from core.artifacts.manifest import Manifest
from core.artifacts.store import ArtifactStore
from core.engine import pipeline, stage_key
from core.engine.recording import MemoryRecord
from core.engine.stage_plan import bound_steps, stage_family
from core.errors import Interrupted, SpecError
from core.measure import score
from core.measure import stage as measuring_stage
from core.spec.model import RunSpec, StepSpec
from core.technique import Family, OneShot
from core.techniques.catalogue import TECHNIQUES
from tests.core.engine.small_runs import DISTIL, MORE, TRAIN, KnowsOneRun, run, same, spec, weights


def test_every_stage_is_measured_and_the_first_trained_one_is_the_reference(whole):
    folder, stages, _ = whole
    assert [stage.measured.technique for stage in stages] == ["source", "train", "train"]
    source, first, second = stages
    assert not source.measured.trained and source.reference_key is None and source.latencies == []
    assert first.reference_key == second.reference_key == first.measured.key
    assert first.comparison is None and second.comparison is not None
    assert first.latencies[0].ratio is None and second.latencies[0].ratio is not None
    assert first.measured.reload_max_error == 0.0
    payload = sum(tensor.numel() * tensor.element_size() for tensor in weights(folder, first).values())
    assert first.measured.size_bytes == payload == 4 * first.measured.parameters


def test_a_run_that_reuses_stages_equals_one_that_does_not(whole, tmp_path):
    folder, alone, _ = whole
    short = run(tmp_path, spec(TRAIN))
    record = MemoryRecord()
    record.stages = list(short)
    reusing = run(tmp_path, spec(TRAIN, MORE), record)
    assert [stage.reused for stage in reusing] == [True, True, False]
    assert [s.measured.key for s in reusing] == [s.measured.key for s in alone]
    assert same(weights(tmp_path, reusing[2]), weights(folder, alone[2]))
    assert reusing[2].measured.score == alone[2].measured.score
    assert "1/loss" not in record.curves and "2/loss" in record.curves


def test_fidelity_is_that_of_the_two_packed_models_on_the_scored_examples(whole):
    folder, stages, record = whole
    source, first, second = stages
    assert source.fidelity is first.fidelity is None  # untrained, and the reference itself
    store = ArtifactStore(str(folder), folder)
    split = pipeline.Execution(spec(TRAIN), MemoryRecord(), store, torch.device("cpu"), None).task.split("test")
    batch = split.batch(score.scored_indices(len(split), 64))
    reference, stage = (
        artifact.load_models(folder / each.artifact)["main"](batch["pixel_values"]).detach() for each in (first, second)
    )
    p, q = reference.softmax(-1), stage.softmax(-1)
    assert second.fidelity.kl == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-3)
    right = [logits.argmax(-1) == batch["labels"] for logits in (reference, stage)]
    assert second.fidelity.right_to_wrong == pytest.approx(100 * float((right[0] & ~right[1]).float().mean()))
    assert second.fidelity.wrong_to_right == pytest.approx(100 * float((right[1] & ~right[0]).float().mean()))
    assert not [message for level, message in record.events if level == "warning" and "fidelity" in message]


def test_fidelity_of_a_found_stage_is_taken_over_or_measured_where_it_is_missing(whole):
    folder, stages, _ = whole
    marked = replace(stages[2].fidelity, kl=123.0)
    known, without = MemoryRecord(), MemoryRecord()
    known.stages = [*stages[:2], replace(stages[2], fidelity=marked)]
    without.stages = [*stages[:2], replace(stages[2], fidelity=None)]
    assert run(folder, spec(TRAIN, MORE), known)[2].fidelity == marked
    assert run(folder, spec(TRAIN, MORE), without)[2].fidelity == stages[2].fidelity


def test_a_language_model_has_fidelity_and_perplexity(tmp_path):
    training = {"train": {"steps": 3, "batch_size": 4, "evaluations": 0}}
    text = spec(
        training, {"rtn": {"bits": 4}}, model={"source": "builtin:gpt", "dim": 16, "depth": 1, "heads": 2},
        task="builtin:markov", measure={"repeats": 5, "test_examples": 16, "memory": False, "length": 16},
    )  # fmt: skip
    _, trained, rounded = run(tmp_path, text)
    assert trained.fidelity is None
    assert 0 < rounded.fidelity.kl_low < rounded.fidelity.kl < rounded.fidelity.kl_high < rounded.fidelity.kl_p99
    assert 50 < rounded.fidelity.top1_agreement < 100
    assert rounded.measured.scores["perplexity"] > 1


def test_latency_of_a_found_stage_is_taken_over_under_the_same_conditions(whole):
    folder, stages, _ = whole
    again = MemoryRecord()
    again.stages = [replace(s, latencies=[replace(row, disturbed=False) for row in s.latencies]) for s in stages]
    known = run(folder, spec(TRAIN, MORE), again)
    assert known[2].latencies == again.stages[2].latencies
    other = run(
        folder,
        spec(TRAIN, MORE, measure={"repeats": 5, "test_examples": 64, "batch_sizes": [2], "memory": False}),
        again,
    )
    assert [row.batch for row in other[2].latencies] == [2]


def test_memory_of_a_found_stage_is_taken_over_from_the_same_machine_only(whole, monkeypatch):
    folder, _, _ = whole
    measuring = spec(TRAIN, measure={"repeats": 5, "test_examples": 64})
    first = MemoryRecord()
    run(folder, measuring, first)
    again = MemoryRecord()
    again.stages = [replace(s, measured=replace(s.measured, peak_memory_bytes=1)) for s in first.stages]
    assert [s.measured.peak_memory_bytes for s in run(folder, measuring, again)] == [1, 1]
    monkeypatch.setattr(measuring_stage, "hardware_name", lambda device: "another machine")
    source, trained = run(folder, measuring, again)
    assert source.measured.peak_memory_bytes == 1 and trained.reused  # an untrained one has no memory to measure
    assert trained.measured.peak_memory_bytes > 1000
    assert trained.measured.details["peak memory"]["hardware"] == "another machine"
    without = run(folder, spec(TRAIN), again)[1]
    assert without.reused and without.measured.peak_memory_bytes is None


@pytest.mark.parametrize(
    "changed",
    [
        spec(TRAIN, seed=1),
        spec({"train": {**TRAIN["train"], "learning_rate": 0.002}}),
        spec(TRAIN, model={"source": "builtin:vit", "dim": 16, "depth": 1, "heads": 1}),
    ],
)
def test_whatever_determines_a_stage_changes_its_key(whole, changed):
    folder, stages, _ = whole
    execution = pipeline.Execution(
        changed, MemoryRecord(), ArtifactStore(str(folder), folder), torch.device("cpu"), None
    )
    assert execution.main.keys[1] != stages[1].measured.key


def test_another_release_and_another_measuring_draw_the_same(tmp_path, monkeypatch):
    teacher = {"train": {**MORE["train"], "methods": [DISTIL]}}
    folders = [tmp_path / name for name in ("now", "later")]
    now = run(folders[0], spec(TRAIN, teacher))
    monkeypatch.setattr(stage_key, "software", lambda: "a later release")
    later = run(folders[1], spec(TRAIN, teacher, measure={"repeats": 5, "test_examples": 65, "memory": False}))
    for position in (1, 2):
        assert now[position].measured.key != later[position].measured.key
        assert same(*(weights(folder, stages[position]) for folder, stages in zip(folders, (now, later), strict=True)))


def test_another_seed_or_place_in_the_recipe_draws_other_numbers():
    def draws(asked: RunSpec) -> list[str]:
        return pipeline.Execution(
            asked, MemoryRecord(), ArtifactStore("", Path()), torch.device("cpu"), None
        ).main.draws

    twice, other = draws(spec(TRAIN, TRAIN)), draws(spec(TRAIN, TRAIN, seed=1))
    assert len({*twice, *other}) == 6


def test_defaults_written_out_and_the_name_change_no_key(whole):
    folder, stages, _ = whole
    written = spec({"train": {**TRAIN["train"], "optimizer": "adamw"}}, name="mine")
    execution = pipeline.Execution(
        written, MemoryRecord(), ArtifactStore(str(folder), folder), torch.device("cpu"), None
    )
    assert execution.main.keys[:2] == [stage.measured.key for stage in stages[:2]]


class Stopping(MemoryRecord):
    """Interrupts the run in a step, at an update."""

    def progress(self, fraction, text):
        if self.place[0] == 2 and text.startswith("update 3 of"):
            raise Interrupted


def test_an_interrupted_run_goes_on_where_it_was(whole, tmp_path):
    folder, alone, _ = whole
    with pytest.raises(Interrupted):
        run(tmp_path, spec(TRAIN, MORE), Stopping(), tmp_path / "resume")
    record = MemoryRecord()
    resumed = run(tmp_path, spec(TRAIN, MORE), record, tmp_path / "resume")
    assert ("info", "resumed at update 3 of 6") in record.events
    assert same(weights(tmp_path, resumed[2]), weights(folder, alone[2]))
    assert list((tmp_path / "resume").iterdir()) == []
    assert not list(tmp_path.glob("draft-*"))


class StoppingAtSecondBlock(MemoryRecord):
    """Interrupts a step that goes block by block, once."""

    def progress(self, fraction, text):
        if text == "blocks.1":
            raise Interrupted


def test_a_step_that_goes_block_by_block_goes_on_at_its_first_unfinished_block(tmp_path):
    model = {"source": "builtin:vit", "dim": 16, "depth": 2, "heads": 2}
    asked = spec({"autoround": {"iterations": 2, "calibration_examples": 8}}, model=model)
    with pytest.raises(Interrupted):
        run(tmp_path / "a", asked, StoppingAtSecondBlock(), tmp_path / "resume")
    assert len(list((tmp_path / "resume").iterdir())) == 1
    record = MemoryRecord()
    resumed = run(tmp_path / "a", asked, record, tmp_path / "resume")
    assert ("info", "blocks.0: taken up from an earlier attempt") in record.events
    assert list((tmp_path / "resume").iterdir()) == []
    assert same(weights(tmp_path / "a", resumed[1]), weights(tmp_path / "b", run(tmp_path / "b", asked)[1]))


def test_an_explicit_reference_comes_first_and_is_measured(whole, tmp_path):
    reference = {"source": "builtin:vit", "dim": 8, "depth": 1, "heads": 1, "recipe": [MORE]}
    record = MemoryRecord()
    stages = run(tmp_path, spec(TRAIN, reference=reference), record)
    brought = record.stages[0]
    assert brought.position == -1 and [stage.position for stage in stages] == [0, 1]
    assert stages[1].reference_key == brought.measured.key
    assert stages[1].latencies[0].ratio is not None


def test_a_run_starts_from_what_another_left_and_inherits_its_reference(whole):
    folder, stages, _ = whole
    record = KnowsOneRun(stages)
    continued = run(folder, spec(MORE, model="run:7"), record)
    assert continued[0].measured.score == stages[2].measured.score
    assert continued[1].reference_key == stages[1].measured.key
    with pytest.raises(SpecError, match="is not a finished run"):
        run(folder, spec(MORE, model="run:8"), record)


def test_what_is_pruned_and_trained_again_counts_as_pruned(whole):
    folder, _, _ = whole
    pruned = run(folder, spec(TRAIN, {"magnitude_pruning": {"sparsity": 0.5}}, MORE))
    told = [(stage.measured.technique, stage.measured.family) for stage in pruned]
    assert told == [("source", "source"), ("train", "training"), ("magnitude_pruning", "pruning"), ("train", "pruning")]
    continued = run(folder, spec(MORE, model="run:7"), KnowsOneRun(pruned))
    assert [stage.measured.family for stage in continued] == ["source", "pruning"]


@pytest.mark.parametrize(
    ("recipe", "family"),
    [
        ([], "source"),
        (["train"], "training"),
        (["train", "rtn"], "quantization"),
        (["svd", "train", "train"], "low rank"),
        (["svd", "train", "rtn"], "quantization"),
        (["nm_pruning", {"train": {"methods": [DISTIL]}}], "pruning"),
        ([{"train": {"methods": [DISTIL]}}], "distillation"),
        (["train", {"train": {"methods": [DISTIL]}}, "train"], "distillation"),
        ([{"train": {"methods": ["sr_ste", DISTIL]}}], "sparse training"),
        (["svd", {"train": {"methods": ["movement_pruning"]}}], "pruning"),
        (["moe", "train"], "mixture of experts"),
    ],
)
def test_a_training_counts_as_its_method_that_compresses_or_as_what_it_trains(recipe, family):
    steps = [bound for _, bound in bound_steps([StepSpec.model_validate(step) for step in recipe], "recipe")]
    assert stage_family(steps, "source") == family


def test_an_artifact_of_another_format_is_refused_with_its_number(whole, tmp_path):
    folder, stages, _ = whole
    text = (folder / stages[1].artifact / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(text.replace('"format": 2', '"format": 99'))
    with pytest.raises(ValueError, match="format 99"):
        Manifest.read(tmp_path)


def test_each_stage_tells_what_its_step_reached(whole):
    source, *trained = whole[1]
    assert "reached" not in source.measured.details
    for stage in trained:
        assert stage.measured.details["reached"]["share"] == 1


class _Idle(OneShot):
    """Changes nothing."""

    family = Family.PRUNING
    paper = "https://example.org"

    def apply(self, subject, context):
        """Look at the model and leave it."""


def test_a_step_that_reaches_nothing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(TECHNIQUES, "idle", _Idle)
    with pytest.raises(SpecError, match=r"recipe\[0\] = 'idle': reaches none of the model's [\d,]+ parameters"):
        run(tmp_path, spec("idle"))
