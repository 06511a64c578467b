"""Streams a run as a zip: its documents, the files of its stages, and finally the manifest."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sqlalchemy.orm import Session

from core import integrity
from core.artifacts.zip_stream import Pipe
from core.bundle import collect, files
from core.bundle.contents import CURVES, FORMAT, LOG, RUN, STAGES, BundleManifest, FileEntry, StageDocument, to_json
from core.bundle.errors import BundleError
from core.integrity import MANIFEST, PACKED

CHUNK = 1 << 20  # bytes read at a time
OpenArtifact = Callable[[str], Path]  # the folder of a stage's files by its key; raises FileNotFoundError


@dataclass(frozen=True)
class Source:
    """The contents of a bundle: documents by name, and files of artifacts by their names in the zip."""

    documents: dict[str, bytes]
    artifacts: dict[str, Path]


def collect_source(session: Session, run_id: int, open_artifact: OpenArtifact, *, weights: bool = False) -> Source:
    """Collect a run and verify its files.

    Raises BundleError if it has not ended or if requested weights are missing, and DamagedArtifact.
    """
    run, stages = collect.run_document(session, run_id), collect.collect_stages(session, run_id)
    kept: dict[str, Path] = {}
    told: list[StageDocument] = []
    for stage in stages.stages:
        folder = _folder(stage, open_artifact, weights=weights)
        told.append(stage if folder is None else _with_manifest_of(folder, stage))
        kept |= {} if folder is None else _verified_files(stage.measured.key, folder, weights=weights)
    documents = {
        RUN: to_json(run),
        STAGES: to_json(stages.model_copy(update={"stages": told})),
        CURVES: to_json(collect.collect_curves(session, run_id)),
        LOG: to_json(collect.log_document(session, run_id)),
    }
    return Source(documents, kept)


def _folder(stage: StageDocument, open_artifact: OpenArtifact, *, weights: bool) -> Path | None:
    """The folder of a stage's files; None if there are none."""
    try:
        folder = open_artifact(stage.measured.key)
    except FileNotFoundError:
        if weights:
            raise BundleError(f"The weights of {stage.measured.label} are no longer on this host.") from None
        return None
    if weights and not (folder / PACKED).exists():
        raise BundleError(f"The weights of {stage.measured.label} are not on this host.")
    return folder


def _with_manifest_of(folder: Path, stage: StageDocument) -> StageDocument:
    """A stage's document, with the digest of the bundled manifest."""
    if stage.artifact is None:
        return stage
    artifact = stage.artifact.model_copy(update={"manifest_sha256": integrity.digest(folder / MANIFEST)})
    return stage.model_copy(update={"artifact": artifact})


def _verified_files(key: str, folder: Path, *, weights: bool) -> dict[str, Path]:
    """The bundled files of a stage, by their names in the zip."""
    chosen = {file.relative_to(folder).as_posix(): file for file in files.list_files(folder, weights=weights)}
    damage = integrity.find_damage(folder, None if weights else chosen)
    if damage:
        raise integrity.DamagedArtifact(key, damage)
    return {files.bundled_name(key, name): file for name, file in chosen.items()}


def write_bundle(wanted: Source) -> Iterator[bytes]:
    """The zip's bytes in chunks."""
    pipe = Pipe()
    entries: dict[str, FileEntry] = {}
    with zipfile.ZipFile(pipe, "w") as archive:
        for name, data in wanted.documents.items():
            entries[name] = _add(archive, name, data)
            yield pipe.take()
        for name, file in wanted.artifacts.items():
            digest, n_bytes = hashlib.sha256(), 0
            with file.open("rb") as opened, archive.open(_entry(name), "w", force_zip64=True) as target:
                while chunk := opened.read(CHUNK):
                    target.write(chunk)
                    digest.update(chunk)
                    n_bytes += len(chunk)
                    yield pipe.take()
            entries[name] = FileEntry(sha256=digest.hexdigest(), bytes=n_bytes)
        manifest = BundleManifest(format=FORMAT, release=version("slimboard"), files=entries)
        _add(archive, MANIFEST, to_json(manifest))
    yield pipe.take()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> FileEntry:
    archive.writestr(_entry(name), data)
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without a timestamp, so that the same run gives the same bundle."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED if files.is_compressed(name) else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    return entry
