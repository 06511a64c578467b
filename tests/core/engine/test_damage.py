"""Damaged artifacts: they are found, discarded, and computed and measured anew."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from core.engine.recording import MemoryRecord
from core.errors import SpecError
from core.integrity import PACKED
from tests.core.engine.small_runs import MORE, TRAIN, KnowsOneRun, run, same, spec, weights


def flip_exponent(file: Path) -> None:
    """Change one bit of the last float's exponent."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x40
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [flip_exponent, lambda file: file.write_bytes(b""), Path.unlink])
def test_a_damaged_stage_is_computed_and_measured_anew(whole, tmp_path, damage):
    folder, alone, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy / alone[1].artifact / PACKED)
    record = MemoryRecord()
    record.stages = list(alone)
    again = run(copy, spec(TRAIN, MORE), record)
    assert [stage.reused for stage in again] == [True, False, True]
    assert [level for level, text in record.events if PACKED in text] == ["warning"]
    assert [stage.measured.score for stage in again] == [stage.measured.score for stage in alone]
    assert same(weights(copy, again[1]), weights(folder, alone[1]))


def test_damaged_results_by_example_are_computed_anew_from_the_same_weights(whole, tmp_path):
    folder, alone, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    flip_exponent(copy / alone[1].artifact / "examples.safetensors")
    record = MemoryRecord()
    record.stages = list(alone)
    again = run(copy, spec(TRAIN, MORE), record)
    assert [stage.reused for stage in again] == [True, True, True]
    assert [level for level, text in record.events if "examples.safetensors" in text] == ["warning"]
    assert again[2].comparison == alone[2].comparison
    files = [place / alone[1].artifact / "examples.safetensors" for place in (folder, copy)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_results_of_another_artifact_than_the_one_that_is_there_are_not_taken_over(whole, tmp_path):
    folder, alone, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / alone[1].artifact)
    wrong = replace(alone[1], measured=replace(alone[1].measured, score=24.7))
    record = MemoryRecord()
    record.stages = [alone[0], wrong, alone[2]]
    again = run(copy, spec(TRAIN, MORE), record)
    assert not again[1].reused and again[1].measured.score == alone[1].measured.score


def test_a_run_whose_artifact_is_damaged_cannot_be_started_from_and_says_what_to_do(whole, tmp_path):
    folder, alone, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    flip_exponent(copy / alone[2].artifact / PACKED)
    record = KnowsOneRun(alone)
    with pytest.raises(SpecError, match="Requeue run 7, and then this run"):
        run(copy, spec(MORE, model="run:7"), record)
    assert [level for level, text in record.events if PACKED in text] == ["warning"]
    assert not (copy / alone[2].artifact).exists()


def test_artifacts_of_the_format_without_digests_are_reused(whole, tmp_path):
    folder, alone, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    record = MemoryRecord()
    for stage in alone:
        file = copy / stage.artifact / "manifest.json"
        manifest = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("files", "sha256")}
        file.write_text(json.dumps({**manifest, "format": 1}))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        record.stages.append(replace(stage, manifest_sha256=digest))
    assert [stage.reused for stage in run(copy, spec(TRAIN, MORE), record)] == [True, True, True]
    assert record.events == []
