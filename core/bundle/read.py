"""Reads a bundle: everything is validated before anything is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.bundle import check, files
from core.bundle.archive import Archive
from core.bundle.contents import (
    CURVES,
    LOG,
    RUN,
    STAGES,
    CurvesDocument,
    LogDocument,
    RunDocument,
    StagesDocument,
    parse,
)
from core.bundle.errors import BundleError
from core.errors import SpecError
from core.integrity import MANIFEST, PACKED
from core.measured import SOURCE
from core.spec.model import RunSpec
from core.spec.recorded_dtype import settings_with_recorded_dtype, with_recorded_dtype


@dataclass(frozen=True)
class Bundle:
    """A validated bundle; the files of its stages are read from the zip while it is open."""

    release: str  # of Slimboard, which wrote it
    spec: RunSpec
    run: RunDocument
    stages: StagesDocument
    curves: CurvesDocument
    log: LogDocument
    names: dict[str, list[str]]  # stage's key -> names of its files
    archive: Archive

    def copy_files(self, key: str, folder: Path) -> None:
        """Write a stage's files into a folder, the manifest last."""
        for name in sorted(self.names[key], key=lambda name: name == MANIFEST):
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            with target.open("wb") as written:
                written.writelines(self.archive.chunks(files.bundled_name(key, name)))

    def has_weights(self, key: str) -> bool:
        """Whether a stage's model can be built from the bundle."""
        return PACKED in self.names.get(key, ())


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Open and fully validate a bundle; raises BundleError with the reason if it is invalid."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        yield _checked(Archive(file, path.stat().st_size))


def _checked(archive: Archive) -> Bundle:
    run = parse(RUN, archive.read(RUN), RunDocument)
    names: dict[str, list[str]] = {}
    for name in archive.entries:
        split = files.split_name(name)
        if split is not None:
            names.setdefault(split[0], []).append(split[1])
    spec, stages = _spec(run), parse(STAGES, archive.read(STAGES), StagesDocument)
    if archive.manifest.format == 1:
        spec, stages = RunSpec.parse(with_recorded_dtype(spec.to_dict())), _with_recorded_dtype(stages)
    bundle = Bundle(
        release=archive.manifest.release,
        spec=spec,
        run=run,
        stages=stages,
        curves=parse(CURVES, archive.read(CURVES), CurvesDocument),
        log=parse(LOG, archive.read(LOG), LogDocument),
        names=names,
        archive=archive,
    )
    check.check_stages(bundle.stages, set(names))
    check.check_columns(bundle.run, bundle.stages)
    for stage in bundle.stages.stages:
        key = stage.measured.key
        if key in names:
            check.check_artifact(archive, key, names[key], stage.artifact)
    return bundle


def _with_recorded_dtype(stages: StagesDocument) -> StagesDocument:
    documents = []
    for document in stages.stages:
        measured = document.measured
        if measured.technique == SOURCE:
            settings = settings_with_recorded_dtype(measured.label, measured.settings)
            document = document.model_copy(update={"measured": replace(measured, settings=settings)})
        documents.append(document)
    return stages.model_copy(update={"stages": documents})


def _spec(run: RunDocument) -> RunSpec:
    try:
        return RunSpec.parse(run.spec)
    except SpecError as error:
        raise BundleError(f"This release cannot read the bundle's spec. {error.problems[0]}") from error
