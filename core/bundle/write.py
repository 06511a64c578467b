"""A run as a zip, piece by piece: its documents, the files of its stages, and at the end the manifest."""

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sqlalchemy.orm import Session

from core.artifacts.zip_stream import Pipe
from core.bundle import collect, files
from core.bundle.contents import CURVES, FORMAT, LOG, RUN, STAGES, FileEntry, Manifest, to_json
from core.bundle.errors import BundleError

CHUNK = 1 << 20  # bytes read at a time
OpenArtifact = Callable[[str], Path]  # the folder of a stage's files by its key; raises FileNotFoundError


@dataclass(frozen=True)
class Source:
    """What goes into a bundle: documents by name, and files of artifacts by their names in the zip."""

    documents: dict[str, bytes]
    artifacts: dict[str, Path]


def source(session: Session, run_id: int, open_artifact: OpenArtifact, *, weights: bool = False) -> Source:
    """Collect a run; raises BundleError where it has not ended, or where weights are wanted that are not there."""
    stages = collect.stages_document(session, run_id)
    documents = {
        RUN: to_json(collect.run_document(session, run_id)),
        STAGES: to_json(stages),
        CURVES: to_json(collect.curves_document(session, run_id)),
        LOG: to_json(collect.log_document(session, run_id)),
    }
    kept: dict[str, Path] = {}
    for stage in stages.stages:
        key = stage.measured.key
        try:
            folder = open_artifact(key)
        except FileNotFoundError:
            if weights:
                raise BundleError(f"The weights of {stage.measured.label} are not on this host any more.") from None
            continue  # its page says so too
        if weights and not (folder / files.PACKED).exists():
            raise BundleError(f"The weights of {stage.measured.label} are not on this host.")
        for file in files.chosen(folder, weights=weights):
            kept[files.bundled_name(key, file.relative_to(folder).as_posix())] = file
    return Source(documents, kept)


def pieces(wanted: Source) -> Iterator[bytes]:
    """The zip's bytes, a little at a time."""
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
        manifest = Manifest(format=FORMAT, release=version("slimboard"), files=entries)
        _add(archive, files.MANIFEST, to_json(manifest))
    yield pipe.take()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> FileEntry:
    archive.writestr(_entry(name), data)
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without a time, so that the same run gives the same bundle."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED if files.is_compressed(name) else zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    return entry
