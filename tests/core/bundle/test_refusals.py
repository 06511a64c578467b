"""Every way in which a bundle can be wrong is refused with its reason, before anything is written."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.bundle import files, read
from core.bundle.errors import BundleError
from tests.bundled import DENSE, SMALL

Files = dict[str, bytes]


def rewritten(bundle: Path, change: Callable[[Files], Any], *, signed: bool = True, deflate: bool = False) -> Path:
    """The bundle with other files; its manifest names them with their checksums if `signed`."""
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    if signed and "manifest.json" in content:
        manifest = json.loads(content.pop("manifest.json"))
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in content.items()
        }
        content["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, data in content.items():
            kind = zipfile.ZIP_DEFLATED if deflate or files.is_compressed(name) else zipfile.ZIP_STORED
            archive.writestr(name, data, kind)
    return bundle


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[Files], None]:
    """A change to one JSON document."""

    def apply(content: Files) -> None:
        value = json.loads(content[name])
        change(value)
        content[name] = json.dumps(value).encode()

    return apply


def refusal(file: Path) -> str:
    with pytest.raises(BundleError) as refused, read.open_bundle(file):
        pass
    return str(refused.value)


def put(name: str, data: bytes) -> Callable[[Files], None]:
    return lambda content: content.update({name: data})


def set_in(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for part in path[:-1]:
            value = value[part]
        value[path[-1]] = to

    return change


SHOWN = f"artifacts/{SMALL}"
MISTAKES = f"{SHOWN}/mistakes-{DENSE}.json"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            edited("manifest.json", set_in("format", to=3)),
            "has format 3; this release of Slimboard reads formats 1 and 2",
        ),
        (edited("manifest.json", set_in("format", to=None)), "has format None"),
        (lambda c: c.pop("manifest.json"), "no manifest.json"),
        (lambda c: c.pop("curves.json"), "no curves.json"),
        (put("run.json", b"[" * 100_000), "run.json is not JSON"),
        (edited("run.json", set_in("spec", "recipe", to=5)), "This release cannot read the bundle's spec. recipe"),
        (edited("run.json", set_in("status", to="running")), "is not in a form that this release reads: status"),
        (edited("run.json", set_in("password", to="x")), "is not in a form that this release reads: password"),
        (edited("run.json", set_in("name", to="a\0b")), "contains a NUL character"),
        (edited("run.json", set_in("name", to="\ud800")), "run.json is not JSON that a store can keep"),
        (edited("run.json", set_in("environment", to={"x": float("nan")})), "run.json is not JSON that a store"),
        (edited("run.json", set_in("environment", to={"worker": "me"})), "is not in a form that this release reads"),
        (put("log.json", b'{"lines": 1e999}'), "log.json is not JSON that a store can keep"),
        (put("run.json", b"\x80\x04\x95 pickled"), "run.json is not JSON"),
        (edited("stages.json", set_in("stages", 0, "measured", "key", to="../../etc")), "not a SHA-256"),
        (edited("stages.json", set_in("places", 0, "key", to="e" * 64)), "does not list stage eeeeeeeeeeee"),
        (edited("stages.json", set_in("places", 1, "position", to=1)), "lists a stage or a position twice"),
        (edited("stages.json", set_in("stages", 1, "measured", "score", to="nan")), "stage.score is not a number"),
        (edited("stages.json", set_in("stages", 1, "measured", "macs", to=2**63)), "stage.macs is out of range"),
        (edited("stages.json", set_in("stages", 1, "measured", "label", to="x" * 201)), "more than 200 characters"),
        (edited("stages.json", set_in("stages", 1, "measured", "details", to={"layers": 5})), "details.layers"),
        (edited("stages.json", set_in("places", 1, "latencies", 2, "operating_point", to=1)), "an operating point"),
        (edited("curves.json", set_in("curves", "1/loss", to=[[1, "nan"]])), "curves.json is not in a form"),
        (put("../../evil.json", b"{}"), "'../../evil.json' is outside the bundle"),
        (put("/etc/cron.d/x", b"{}"), "'/etc/cron.d/x' is outside the bundle"),
        (put(f"artifacts/{SMALL}/tokenizer/../../x", b"{}"), "is outside the bundle"),
        (put("C:\\x.json", b"{}"), "is outside the bundle"),
        (put("artifacts/x/manifest.json", b"{}"), "is not a known file of a bundle"),
        (put(f"{SHOWN}/model.pkl", b"\x80\x04"), "is not a known file of a bundle"),
        (put(f"{SHOWN}/code.py", b"import os"), "is not a known file of a bundle"),
        (lambda c: c.pop(f"{SHOWN}/manifest.json"), "has files but no manifest"),
        (put(f"{SHOWN}/examples.safetensors", b"\x80\x04 pickled"), "is not a safetensors file"),
        (put(f"{SHOWN}/model.safetensors", b"\x08\0\0\0\0\0\0\0{}      xx"), "is not a safetensors file"),
        (put(MISTAKES, b'[{"nats": 1, "reference_nats": 0, "image": "bm8gaW1hZ2U="}]'), "form of per-example results"),
        (put(MISTAKES, b'[{"nats": 1, "reference_nats": 0}]'), "neither an image nor text"),
        (put(MISTAKES, b'{"nats": 1}'), "form of per-example results"),
    ],
)
def test_a_bundle_that_is_not_plain_is_refused(bundle, change, reason):
    assert reason in refusal(rewritten(bundle, change))


def test_weights_other_than_those_that_were_told_of_are_refused(heavy):
    changed = rewritten(heavy, put(f"{SHOWN}/manifest.json", b'{"format": 1}'))
    assert "weights of stage cccccccccccc do not match stages.json" in refusal(changed)


@pytest.mark.parametrize("name", ["run.json", f"{SHOWN}/examples.safetensors"])
def test_a_changed_byte_is_found(bundle, name):
    def change(content: Files) -> None:
        content[name] = content[name].replace(b"e", b"o", 1)

    assert f"damaged: {name} does not match its checksum" in refusal(rewritten(bundle, change, signed=False))


def test_a_file_that_the_manifest_does_not_name_is_found(bundle):
    changed = rewritten(bundle, put(f"{SHOWN}/mistakes-{SMALL}.json", b"[]"), signed=False)
    assert "its manifest and its files differ" in refusal(changed)


def test_a_cut_file_is_refused(bundle):
    bundle.write_bytes(bundle.read_bytes()[:-200])
    assert "This is not a bundle" in refusal(bundle)


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.zip").write_text("nothing")
    assert "This is not a bundle" in refusal(tmp_path / "x.zip")
    assert "cannot be read" in refusal(tmp_path / "none.zip")


def test_bytes_broken_on_the_way_are_refused(bundle):
    data = bytearray(bundle.read_bytes())
    start = data.index(b"run.json") + len("run.json")
    data[start + 5 : start + 25] = bytes(20)
    bundle.write_bytes(data)
    assert "damaged: run.json" in refusal(bundle)


def test_a_file_twice_is_refused(bundle):
    with zipfile.ZipFile(bundle, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("run.json", "{}")
    assert "run.json appears twice" in refusal(bundle)


def test_json_that_unpacks_to_more_than_is_read_is_refused(bundle, monkeypatch):
    monkeypatch.setattr(files, "MOST_JSON_BYTES", 10_000)
    changed = rewritten(bundle, put("log.json", b'{"lines": []' + b" " * 20_000 + b"}"))
    assert changed.stat().st_size < 15_000
    assert "log.json is 20,013 bytes" in refusal(changed)


def test_all_json_together_is_limited(bundle, monkeypatch):
    monkeypatch.setattr(files, "MOST_JSON_TOTAL", 1_000)
    assert "the total size of its JSON" in refusal(bundle)


def test_what_is_not_json_may_not_be_compressed(bundle):
    changed = rewritten(bundle, put(f"{SHOWN}/examples.safetensors", bytes(10_000_000)), deflate=True)
    assert changed.stat().st_size < 100_000
    assert "examples.safetensors is compressed; only JSON may be" in refusal(changed)


def test_entries_that_overlap_are_refused(heavy):
    """One stored file, named by many entries, would unpack to many times the zip."""
    with zipfile.ZipFile(heavy, "a") as archive:
        whole = archive.getinfo(f"{SHOWN}/model.safetensors")
        for number in range(200):
            copy = zipfile.ZipInfo(f"{SHOWN}/tokenizer/{number}")
            for name in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(copy, name, getattr(whole, name))
            archive.filelist.append(copy)
        archive._didModify = True
    assert "the total size of its files" in refusal(heavy)


def test_the_number_of_files_is_limited(bundle, monkeypatch):
    monkeypatch.setattr(files, "MOST_FILES", 5)
    assert "the number of its files is" in refusal(bundle)
