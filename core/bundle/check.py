"""Checks that the parts of a bundle are consistent, and that the files of its stages are valid."""

import base64
import hashlib
import io
import tempfile
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from core.bundle import files, fit
from core.bundle.archive import Archive
from core.bundle.contents import STAGES, ArtifactDocument, FileEntry, RunDocument, StagesDocument, plain_json
from core.bundle.errors import BundleError
from core.integrity import FILES, MANIFEST, PACKED, is_sealed
from core.store.models import Artifact, Latency, OperatingPoint, Run, Stage


class _Mistake(BaseModel):
    """An input that a stage gets wrong, as shown on the run page: an image or a text."""

    model_config = ConfigDict(extra="allow")
    nats: float
    reference_nats: float
    unit: str = "nats"
    image: str | None = None
    text: str | None = None


_MISTAKES = TypeAdapter(list[_Mistake])
_DIGESTS = TypeAdapter(dict[str, FileEntry])


def check_stages(document: StagesDocument, keys_with_files: set[str]) -> None:
    """Raise BundleError if stages, positions, latencies and files are inconsistent."""
    keys = [stage.measured.key for stage in document.stages]
    positions = [place.position for place in document.places]
    if len(set(keys)) < len(keys) or len(set(positions)) < len(positions):
        raise BundleError(f"{STAGES} lists a stage or a position twice.")
    named = set(keys_with_files)
    n_points = {stage.measured.key: len(stage.operating_points) for stage in document.stages}
    for place in document.places:
        references = (place.reference_key, *(row.reference_key for row in place.latencies))
        named |= {place.key, *filter(None, references)}
        points = [row.operating_point for row in place.latencies if row.operating_point is not None]
        if any(not 0 <= point < n_points.get(place.key, 0) for point in points):
            raise BundleError(f"{STAGES} has the latency of an operating point that it does not list.")
    if not named <= set(keys):
        raise BundleError(f"{STAGES} does not list stage {min(named - set(keys))[:12]}, which the bundle refers to.")


def check_columns(run: RunDocument, document: StagesDocument) -> None:
    """Raise BundleError for a value that does not fit into its column."""
    fit.check(Run, run.model_dump(exclude={"number", "tags", "notes"}))
    for stage in document.stages:
        fit.check(Stage, vars(stage.measured))
        if stage.artifact is not None:
            fit.check(Artifact, stage.artifact.model_dump())
        for point in stage.operating_points:
            fit.check(OperatingPoint, point.model_dump())
    for place in document.places:
        for latency in place.latencies:
            fit.check(Latency, vars(latency.row))


def check_artifact(archive: Archive, key: str, names: list[str], told: ArtifactDocument | None) -> None:
    """Raise BundleError for invalid files of a stage."""
    if MANIFEST not in names:
        raise BundleError(f"The bundle is incomplete: stage {key[:12]} has files but no manifest.")
    for name in names:
        whole = files.bundled_name(key, name)
        if name.endswith(".safetensors"):
            _tensors(archive, whole)
        elif files.is_compressed(whole):
            value = plain_json(whole, archive.read(whole))
            if name.startswith("mistakes-"):
                _mistakes(whole, value)
    _same_files(archive, key, names)
    digest = hashlib.sha256(archive.read(files.bundled_name(key, MANIFEST))).hexdigest()
    if PACKED in names and (told is None or told.manifest_sha256 != digest):
        raise BundleError(f"The weights of stage {key[:12]} do not match {STAGES}.")


def _same_files(archive: Archive, key: str, names: list[str]) -> None:
    """Raise BundleError for files that do not match the artifact's manifest; older manifests list none."""
    place = files.bundled_name(key, MANIFEST)
    manifest = plain_json(place, archive.read(place))
    if not isinstance(manifest, dict) or FILES not in manifest:
        return
    try:
        told = _DIGESTS.validate_python(manifest[FILES])
    except ValidationError as error:
        raise BundleError(f"{place} lists its files in a form that this release does not read.") from error
    if not is_sealed(manifest):
        raise BundleError(f"The bundle is damaged: {place} has changed since it was written.")
    for name, entry in told.items():
        if name in names and archive.manifest.files[files.bundled_name(key, name)] != entry:
            raise BundleError(f"The bundle is damaged: {name} of stage {key[:12]} does not match its manifest.")
        if name not in names and PACKED in names:
            raise BundleError(f"The bundle is incomplete: stage {key[:12]} has no {name}.")


def _tensors(archive: Archive, name: str) -> None:
    """Raise BundleError for a file whose header does not match its contents."""
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as copy:
        copy.writelines(archive.chunks(name))
        copy.flush()
        try:
            with safe_open(copy.name, framework="np") as tensors:
                tensors.keys()
        except SafetensorError as error:
            raise BundleError(f"{name} is not a safetensors file: {error}.") from error


def _mistakes(name: str, value: Any) -> None:
    try:
        for item in _MISTAKES.validate_python(value):
            if item.image is not None:
                with Image.open(io.BytesIO(base64.b64decode(item.image, validate=True))) as image:
                    image.verify()
            elif item.text is None:
                raise BundleError(f"{name} has an input that is neither an image nor text.")
    except (ValidationError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{name} does not have the form of per-example results.") from error
