import json
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from core.errors import SpecError
from core.models.checkpoint import locate, weight_files


def problem_of(call, *args, **kwargs):
    with pytest.raises(SpecError) as caught:
        call(*args, **kwargs)
    return caught.value.problems[0]


@pytest.fixture
def folder(data_folder):
    made = data_folder / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    return made


def test_folder_is_found_by_its_full_and_by_its_relative_name(folder):
    assert locate(f"hf:{folder}", None, weights=True) == folder
    assert locate("hf:model", None, weights=True) == folder


@pytest.mark.parametrize(
    "name", ["{outside}", "{data}/../outside", "../outside", "./nowhere", "~/model", "a/b/c", "{data}"]
)
def test_folder_outside_the_named_ones_is_refused(name, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    source = "hf:" + name.format(outside=outside, data=folder.parent)
    problem = problem_of(locate, source, None, weights=True)
    assert problem.field == "model.source" and "SLIMBOARD_DATA" in problem.remedy


def test_link_out_of_the_folder_is_refused(folder, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    assert "tokenizer.json" in problem_of(locate, "hf:model", None, weights=True).message


def test_linked_folder_that_leads_out_is_refused(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (folder.parent / "linked").symlink_to(tmp_path / "outside")
    assert problem_of(locate, f"hf:{folder.parent / 'linked'}", None, weights=True).field == "model.source"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_with_the_reason(name, folder):
    (folder / name).write_bytes(b"")
    problem = problem_of(weight_files, "hf:model", folder)
    assert problem.field == "model.source" and name in problem.message and "run code" in problem.message


def test_parts_are_those_that_the_index_names(folder):
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": parts[1], "b": parts[0], "c": parts[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / parts[0]).write_bytes(b"")
    assert parts[1] in problem_of(weight_files, "hf:model", folder).message
    (folder / parts[1]).write_bytes(b"")
    assert [file.name for file in weight_files("hf:model", folder)] == parts


def test_index_cannot_name_a_file_elsewhere(folder, tmp_path):
    (tmp_path / "data" / "other.safetensors").write_bytes(b"")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    assert "../other.safetensors" in problem_of(weight_files, "hf:model", folder).message


ERRORS = [
    (GatedRepoError, "model.source", "HF_TOKEN"),
    (RepositoryNotFoundError, "model.source", "spelling"),
    (RevisionNotFoundError, "model.revision", "commit"),
]


@pytest.mark.parametrize(("error", "field", "remedy"), ERRORS)
def test_what_the_hub_refuses_is_said_with_its_remedy(error, field, remedy, data_folder, monkeypatch):
    def refuse(*args, **kwargs):
        request = SimpleNamespace(url="", headers={})
        raise error("no", response=SimpleNamespace(headers={}, request=request, status_code=403))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    problem = problem_of(locate, "hf:owner/model", None, weights=True)
    assert problem.field == field and remedy in problem.remedy


def test_unreachable_hub_is_said(data_folder, monkeypatch):
    def unreachable(*args, **kwargs):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    assert "cannot reach" in problem_of(locate, "hf:owner/model", None, weights=True).message


def test_hub_snapshot_may_link_to_the_files_beside_it_only(data_folder, monkeypatch, tmp_path):
    cache = tmp_path / "models--owner--model"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blob").write_text("{}")
    (snapshot / "config.json").symlink_to(cache / "blob")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **kwargs: str(snapshot))
    assert locate("hf:owner/model", None, weights=False) == snapshot
    (snapshot / "vocab.json").symlink_to(tmp_path)
    assert "vocab.json" in problem_of(locate, "hf:owner/model", None, weights=False).message
