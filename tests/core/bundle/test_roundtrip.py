"""From one store into another: the same rows, but for their numbers."""

import hashlib
import json
import zipfile

import pytest
from sqlalchemy import select

from core.bundle import collect, insert, read, write
from core.bundle.contents import to_json
from core.bundle.errors import BundleError
from core.store import engine, runs, stages, users
from core.store.models import Event, Latency, Run, RunNeed, RunStatus, Stage
from tests import bundled, factories
from tests.bundled import DENSE, SMALL
from tests.core.bundle.test_refusals import edited, rewritten, set_in


def imported(s, file, user: str = "alice", **changes) -> int:
    owner = users.enrol(s, user)
    factories.submit(s, user=user, name="in the way of equal numbers")
    factories.submit(s, user=user, name="and one more")
    project_id = users.list_projects(s, owner.id)[0].id
    with read.open_bundle(file) as bundle:
        return insert.add_run(s, bundle, project_id=project_id, owner_id=owner.id, needs=["technique:rtn#1"])


def described(s, run_id: int) -> list[object]:
    """All that a bundle tells, the run's number left out."""
    run = json.loads(to_json(collect.run_document(s, run_id)))
    del run["number"]
    documents = (collect.collect_stages, collect.collect_curves, collect.log_document)
    return [run, *(json.loads(to_json(document(s, run_id))) for document in documents)]


def without_weights(told: list) -> list:
    """Artifacts whose weights were not in the bundle are not there either."""
    for stage in told[1]["stages"]:
        stage["artifact"] = None
    return told


def test_every_row_is_the_same_in_the_other_store(origin, heavy, session):
    run_id = imported(session, heavy)
    assert run_id == 3
    with engine.read_session(origin) as s:
        there = described(s, 2)
    assert described(session, run_id) == there
    assert there[2]["curves"]["1/loss"][3] == [3, 1.7] and len(there[1]["places"][1]["latencies"]) == 3
    assert [line["message"] for line in there[3]["lines"]] == ["slow", "it broke"]


def test_what_is_not_in_a_document_is_right_too(bundle, session):
    run_id = imported(session, bundle)
    run = session.get_one(Run, run_id)
    assert (run.status, run.progress, run.recipe, run.worker_id) == (RunStatus.DONE, 1.0, "train → rtn", None)
    assert "small one" in run.search and "ship" in run.search
    assert [need.need for need in session.query(RunNeed).filter_by(run_id=run_id)] == ["technique:rtn#1"]
    early = session.query(Latency).filter(Latency.operating_point_id.is_not(None)).one()
    (point,) = stages.list_operating_points(session, [early.stage_id])
    assert (point.id, point.value) == (early.operating_point_id, 0.5)
    log = [event.message for event in session.query(Event).filter_by(run_id=run_id, level="info")]
    assert log == ["imported from a bundle of run 2, written by Slimboard 0.1.0"]


def test_without_weights_no_artifact_is_promised(origin, bundle, session):
    run_id = imported(session, bundle)
    with engine.read_session(origin) as s:
        assert described(session, run_id) == without_weights(described(s, 2))
    assert stages.find_run_stage(session, run_id) == (SMALL, None)  # so nothing can be started from it


def test_notes_are_the_importing_users_and_name_their_authors(bundle, session):
    run_id = imported(session, bundle, user="bob")
    (note,) = runs.list_notes(session, run_id)
    assert (note.author, note.text) == ("bob", "alice: worth shipping ½\nsecond line")
    assert note.created_at > 1e9


def test_a_stage_that_is_known_stands_and_is_told(bundle, session):
    stages.add_stage(session, factories.measured(SMALL, label="ours", score=90.0), "x", 5, "0")
    with read.open_bundle(bundle) as found:
        assert insert.list_differing(session, found) == ["ours"]
    imported(session, bundle)
    assert session.query(Stage.score).filter_by(key=SMALL).scalar() == 90.0


def test_the_same_run_is_found_and_a_rerun_is_another(bundle, session):
    run_id = imported(session, bundle)
    with read.open_bundle(bundle) as found:
        assert insert.find_identical(session, found, 1) == run_id
        assert insert.find_identical(session, found, 2) is None
        session.get_one(Run, run_id).started_at = 1_700_000_002.0
        session.flush()
        assert insert.find_identical(session, found, 1) is None


def test_a_run_in_its_own_store_is_found(origin, bundle):
    with engine.read_session(origin) as s, read.open_bundle(bundle) as found:
        assert insert.find_identical(s, found, 1) == 2


def test_an_imported_run_is_bundled_again_with_its_worker(bundle, session, artifacts, tmp_path):
    run_id = imported(session, bundle)
    again = bundled.written(
        tmp_path / "again.zip", write.write_bundle(write.collect_source(session, run_id, artifacts.open))
    )
    with read.open_bundle(again) as found:
        assert found.run.environment["worker"]["name"] == "host-cpu-1"


def test_files_are_those_that_pages_show(bundle, heavy):
    shown = {"manifest.json", "report.json", "examples.safetensors", f"mistakes-{DENSE}.json"}
    with read.open_bundle(bundle) as found:
        assert {key: set(names) for key, names in found.names.items()} == {DENSE: shown, SMALL: shown}
        assert not found.has_weights(SMALL)
    with read.open_bundle(heavy) as found:
        assert set(found.names[SMALL]) == shown | {"model.safetensors", "tokenizer/vocab.json"}
        assert found.has_weights(SMALL)


def test_files_are_copied_byte_by_byte(heavy, artifacts, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    with read.open_bundle(heavy) as found:
        found.copy_files(SMALL, folder)
    for file in (p for p in folder.rglob("*") if p.is_file()):
        assert file.read_bytes() == (artifacts.open(SMALL) / file.relative_to(folder)).read_bytes()


def test_the_manifest_names_format_release_and_every_checksum(bundle):
    with zipfile.ZipFile(bundle) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert (manifest["format"], manifest["release"]) == (2, "0.1.0")
        assert set(manifest["files"]) == set(archive.namelist()) - {"manifest.json"}
        for name, entry in manifest["files"].items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == entry["sha256"]


def test_the_same_run_gives_the_same_bytes(origin, artifacts, bundle):
    with engine.read_session(origin) as s:
        assert b"".join(write.write_bundle(write.collect_source(s, 2, artifacts.open))) == bundle.read_bytes()


def test_what_cannot_be_bundled_says_why(origin, artifacts):
    with engine.read_session(origin) as s:
        with pytest.raises(BundleError, match="no run 9"):
            write.collect_source(s, 9, artifacts.open)
        with pytest.raises(BundleError, match="Run 1 is queued"):
            write.collect_source(s, 1, artifacts.open)
        (artifacts.open(SMALL) / "model.safetensors").unlink()
        with pytest.raises(BundleError, match="weights of rtn 8-bit are not on this host"):
            write.collect_source(s, 2, artifacts.open, weights=True)


def test_a_bundle_of_an_older_release_tells_that_its_checkpoints_were_float32(bundle, session):
    def older(content: dict[str, bytes]) -> None:
        edited("run.json", set_in("spec", "model", to={"source": "hf:acme/small"}))(content)
        for field, value in (("technique", "source"), ("label", "hf:acme/small"), ("settings", {})):
            edited("stages.json", set_in("stages", 0, "measured", field, to=value))(content)
        stages = json.loads(content["stages.json"])
        for stage in stages["stages"]:
            del stage["measured"]["checkpoint_bytes"]
        content["stages.json"] = json.dumps(stages).encode()
        edited("manifest.json", set_in("format", to=1))(content)

    run = session.get_one(Run, imported(session, rewritten(bundle, older)))
    assert run.spec["model"] == {"source": "hf:acme/small", "dtype": "float32"}
    source = session.scalars(select(Stage).where(Stage.technique == "source")).one()
    assert source.settings == {"dtype": "float32"} and source.checkpoint_bytes is None
