"""Damage in the files of an artifact: every kind of it is found, in every file, and nothing else is."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from core import integrity

NAMES = ("model.safetensors", "probe.safetensors", "report.json", "tokenizer/vocab.json", "manifest.json")


def flip(file: Path) -> None:
    """Change one bit in the last byte but one: of a float32 its exponent."""
    data = bytearray(file.read_bytes())
    data[-2] ^= 0x40
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def written(folder: Path, *, digests: bool = True) -> Path:
    """An artifact of the form that `core.artifacts.artifact` writes."""
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("model.safetensors", "probe.safetensors"):
        save_file({"weight": np.arange(100, dtype=np.float32)}, folder / name)
    (folder / "report.json").write_text(json.dumps({"seconds": 1.5, "details": {}}))
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 1}')
    manifest = {"format": 2, "packed": {"replacements": {}}, "working": None}
    content = integrity.sealed(manifest, folder) if digests else manifest
    (folder / "manifest.json").write_text(json.dumps(content, indent=1))
    return folder


def add_examples(folder: Path) -> Path:
    examples = {"correct": np.ones(8, np.float32), "nats": np.arange(8, dtype=np.float32)}
    file = folder / "examples.safetensors"
    file.write_bytes(integrity.seal_examples(lambda metadata: save(examples, metadata)))
    return file


def test_whole_files_are_not_damaged(tmp_path):
    folder = written(tmp_path / "new")
    add_examples(folder)
    (folder / "mistakes-1.json").write_text("[]")
    assert integrity.find_damage(folder) == {}
    assert integrity.find_damage(written(tmp_path / "old", digests=False)) == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_damage_in_any_file_is_found(tmp_path, name, damage):
    folder = written(tmp_path / "a")
    damage(folder / name)
    found = integrity.find_damage(folder)
    assert list(found) == [name]
    assert integrity.DamagedArtifact("key", found).is_lost


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_damaged_results_by_example_are_found_and_cost_no_weights(tmp_path, damage):
    folder = written(tmp_path / "a")
    damage(add_examples(folder))
    found = integrity.find_damage(folder)
    assert list(found) == ["examples.safetensors"]
    assert not integrity.DamagedArtifact("key", found).is_lost


@pytest.mark.parametrize(("name", "found"), [("model.safetensors", True), ("tokenizer/vocab.json", False)])
@pytest.mark.parametrize("damage", [cut, empty, Path.unlink])
def test_of_an_older_artifact_files_that_cannot_be_read_are_found(tmp_path, name, found, damage):
    folder = written(tmp_path / "a", digests=False)
    damage(folder / name)
    assert list(integrity.find_damage(folder)) == ([name] if found else [])


def test_a_changed_value_in_the_manifest_is_found(tmp_path):
    folder = written(tmp_path / "a")
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"working": null', '"working": {}'))
    assert integrity.find_damage(folder) == {"manifest.json": "has changed since it was written"}


def test_only_files_that_are_asked_about_are_read(tmp_path):
    folder = written(tmp_path / "a")
    flip(folder / "model.safetensors")
    assert integrity.find_damage(folder, ["report.json"]) == {}
    assert set(integrity.find_damage(folder, ["report.json", "model.safetensors"])) == {"model.safetensors"}
