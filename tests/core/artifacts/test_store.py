"""Where artifacts lie: whole or not at all, on this host's disk and on storage elsewhere."""

import errno
import json
import os
import time
import uuid
from pathlib import Path

import pytest

from core import disk, integrity
from core.artifacts import store as artifact_store
from core.artifacts.store import ArtifactStore
from core.disk import DiskFull
from core.integrity import MANIFEST, DamagedArtifact

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


def whole(folder: Path, text: str) -> None:
    (folder / "notes.txt").write_text(text)
    (folder / MANIFEST).write_text(json.dumps(integrity.sealed({"format": 2}, folder)))


def write_whole(store: ArtifactStore, text: str) -> Path:
    with store.writing(KEY) as draft:
        whole(draft, text)
    return store.open(KEY)


def fresh(store: ArtifactStore) -> ArtifactStore:
    """The store as another run sees it, which has verified nothing yet."""
    return ArtifactStore(store.filesystem.unstrip_protocol(store.root), store.cache)


def test_a_damaged_artifact_is_discarded_and_reported_once(tmp_path):
    store = ArtifactStore(str(tmp_path), tmp_path)
    (write_whole(store, "good") / "notes.txt").write_text("evil")
    told = []
    assert fresh(store).find_whole(KEY, told.append) is None
    assert [(d.key, str(d)) for d in told] == [(KEY, "notes.txt does not match its SHA-256 in the manifest")]
    assert not store.has(KEY) and drafts(tmp_path) == []
    assert fresh(store).find_whole(KEY, told.append) is None and len(told) == 1


def test_files_are_read_once_a_run(tmp_path, monkeypatch):
    store = ArtifactStore(str(tmp_path), tmp_path)
    write_whole(store, "good")
    read = []
    monkeypatch.setattr(artifact_store, "find_damage", lambda folder: read.append(folder) or {})
    store.open_verified(KEY)
    assert read == []  # it has just been written
    other = fresh(store)
    assert other.open_verified(KEY) == other.open_verified(KEY) == read[0] and len(read) == 1


def test_what_was_written_meanwhile_in_the_place_of_a_damaged_artifact_stays(tmp_path):
    slow, fast = (ArtifactStore(str(tmp_path), tmp_path) for _ in range(2))
    (write_whole(slow, "good") / "notes.txt").write_text("evil")
    with pytest.raises(DamagedArtifact) as seen:
        fresh(slow).open_verified(KEY)
    assert fast.discard(seen.value)
    write_whole(fast, "good")
    assert not slow.discard(seen.value)  # it has looked before the other one repaired it
    assert (fresh(slow).open_verified(KEY) / "notes.txt").read_text() == "good" and drafts(tmp_path) == []


def test_what_is_left_of_an_artifact_gives_way_to_a_whole_one(tmp_path):
    store = ArtifactStore(str(tmp_path), tmp_path)
    (write_whole(store, "first") / MANIFEST).unlink()
    assert not store.has(KEY)
    assert (write_whole(fresh(store), "second") / "notes.txt").read_text() == "second" and drafts(tmp_path) == []


def test_a_damaged_copy_of_an_artifact_elsewhere_is_fetched_anew(tmp_path):
    store = ArtifactStore(f"memory://{uuid.uuid4().hex}", tmp_path)
    (write_whole(store, "good") / "notes.txt").write_text("evil")
    told = []
    folder = fresh(store).find_whole(KEY, told.append)
    assert (folder / "notes.txt").read_text() == "good" and told == []


def test_an_artifact_that_is_damaged_elsewhere_is_discarded_there_and_written_anew(tmp_path):
    address = f"memory://{uuid.uuid4().hex}"
    here, there = (ArtifactStore(address, tmp_path / host) for host in ("here", "there"))
    write_whole(here, "good")
    here.filesystem.pipe_file(f"{here.root}/{here.address(KEY)}/notes.txt", b"evil")
    told = []
    assert there.find_whole(KEY, told.append) is None and len(told) == 1
    assert not there.has(KEY)
    write_whole(there, "good")
    assert (ArtifactStore(address, tmp_path / "third").open_verified(KEY) / "notes.txt").read_text() == "good"


def test_files_are_on_the_disk_before_the_folder_gets_its_place(tmp_path, monkeypatch):
    store = ArtifactStore(str(tmp_path), tmp_path)
    synced = []
    monkeypatch.setattr(disk, "sync", lambda path: synced.append((path.name, store.has(KEY))))
    folder = write_whole(store, "good")
    before, after = ([name for name, placed in synced if placed == there] for there in (False, True))
    assert {"notes.txt", MANIFEST} <= set(before) and before[-1].startswith("draft-")
    assert after == [folder.parent.name, tmp_path.name]


def test_a_full_disk_is_told_with_its_folder_and_leaves_nothing(tmp_path):
    store = ArtifactStore(str(tmp_path), tmp_path)

    def fill() -> None:
        with store.writing(KEY) as draft:
            (draft / "model.safetensors").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull, match=f"The disk is full.*{tmp_path} failed .* Free some space"):
        fill()
    assert not store.has(KEY) and list(tmp_path.iterdir()) == []
