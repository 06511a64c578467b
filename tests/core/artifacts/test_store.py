"""Where artifacts lie: whole or not at all, on this host's disk and on storage elsewhere."""

import os
import time
import uuid

import pytest

from core.artifacts.store import ArtifactStore

KEY = "ab" * 32


def write(store: ArtifactStore, text: str, key: str = KEY):
    with store.writing(key) as draft:
        (draft / "model.safetensors").write_text(text)
        (draft / "manifest.json").write_text("{}")
    return store.open(key)


def drafts(folder):
    return list(folder.glob("draft-*"))


def test_an_artifact_that_could_not_be_written_leaves_nothing(tmp_path):
    store = ArtifactStore(str(tmp_path), tmp_path)

    def write_half() -> None:
        with store.writing(KEY) as draft:
            (draft / "model.safetensors").write_text("half")
            raise MemoryError

    with pytest.raises(MemoryError):
        write_half()
    assert not store.has(KEY) and drafts(tmp_path) == []


def test_of_two_writers_the_first_one_stays(tmp_path):
    store = ArtifactStore(str(tmp_path), tmp_path)
    with store.writing(KEY) as slow:
        (slow / "manifest.json").write_text("{}")
        write(store, "first")
    assert (store.open(KEY) / "model.safetensors").read_text() == "first"
    assert drafts(tmp_path) == []


def test_drafts_of_killed_processes_are_removed_and_those_being_written_are_not(tmp_path):
    store = ArtifactStore(str(tmp_path), tmp_path)
    long_ago = time.time() - 10 * 86_400
    for name in ("draft-left", "draft-written"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
        os.utime(tmp_path / name, (long_ago, long_ago))
    os.utime(tmp_path / "draft-left" / "model.safetensors", (long_ago, long_ago))
    folder = write(store, "whole")
    os.utime(folder, (long_ago, long_ago))
    assert store.sweep() == 1
    assert [draft.name for draft in drafts(tmp_path)] == ["draft-written"] and store.has(KEY)


def test_what_is_written_beside_an_artifact_reaches_other_hosts(tmp_path):
    address = f"memory://{uuid.uuid4().hex}"
    here, there = (ArtifactStore(address, tmp_path / host) for host in ("here", "there"))
    folder = write(here, "weights")
    (folder / "mistakes-1.json").write_text("[]")
    here.send_rest(KEY)
    found = there.open(KEY)
    assert {file.name for file in found.iterdir()} == {"model.safetensors", "manifest.json", "mistakes-1.json"}
    assert (found / "model.safetensors").read_text() == "weights" and drafts(tmp_path / "there") == []


def test_a_removed_artifact_is_gone_here_and_elsewhere(tmp_path):
    address = f"memory://{uuid.uuid4().hex}"
    here, there = (ArtifactStore(address, tmp_path / host) for host in ("here", "there"))
    write(here, "weights")
    write(here, "others", "b" * 64)
    here.remove(KEY)
    here.remove(KEY)
    assert not here.has(KEY) and not there.has(KEY) and here.has("b" * 64)
    with pytest.raises(FileNotFoundError):
        here.open(KEY)
