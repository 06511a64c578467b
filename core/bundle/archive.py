"""The zip of a bundle: its validated entries and their bytes."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from core.bundle import files
from core.bundle.contents import READABLE, BundleManifest, parse, plain_json
from core.bundle.errors import BundleError
from core.integrity import MANIFEST

CHUNK = 1 << 20  # bytes read at a time


class Archive:
    """A zip with the entries of a bundle, each with the checksum in the manifest."""

    def __init__(self, file: BinaryIO, n_bytes: int):
        try:
            self.zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise BundleError(f"This is not a bundle: {error}.") from error
        self.entries = _entries(self.zip.infolist(), n_bytes)
        self.manifest = self._read_manifest()
        self._check_sums()

    def read(self, name: str) -> bytes:
        """A file's content."""
        return b"".join(self.chunks(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's content in chunks, never more than its entry's size."""
        entry, n_bytes = self.entries[name], 0
        try:
            with self.zip.open(entry) as file:
                while chunk := file.read(CHUNK):
                    n_bytes += len(chunk)
                    _limit(name, n_bytes, entry.file_size)
                    yield chunk
        except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
            raise BundleError(f"The bundle is damaged: {name} cannot be read ({error}).") from error

    def _read_manifest(self) -> BundleManifest:
        """The manifest; another format is rejected before anything else is read."""
        data = self.read(MANIFEST)
        told = plain_json(MANIFEST, data)
        found = told.get("format") if isinstance(told, dict) else None
        if found not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise BundleError(f"The bundle has format {found!r}; this release of Slimboard reads formats {known}.")
        return parse(MANIFEST, data, BundleManifest)

    def _check_sums(self) -> None:
        odd = set(self.manifest.files) ^ (set(self.entries) - {MANIFEST})
        if odd:
            raise BundleError(f"The bundle is incomplete: its manifest and its files differ in {min(odd)}.")
        for name, told in self.manifest.files.items():
            digest = hashlib.sha256()
            for chunk in self.chunks(name):
                digest.update(chunk)
            if self.entries[name].file_size != told.bytes or digest.hexdigest() != told.sha256:
                raise BundleError(f"The bundle is damaged: {name} does not match its checksum in the manifest.")


def _entries(listed: list[zipfile.ZipInfo], n_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Entries by name; raises BundleError. Uncompressed entries cannot exceed the zip's `n_bytes`."""
    _limit("the number of its files", len(listed), files.MOST_FILES, "")
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in listed:
        _check_entry(entry)
        if entry.filename in entries:
            raise BundleError(f"The bundle is refused: {entry.filename} appears twice.")
        entries[entry.filename] = entry
    packed = [entry for name, entry in entries.items() if files.is_compressed(name)]
    _limit("the total size of its JSON", sum(entry.file_size for entry in packed), files.MOST_JSON_TOTAL)
    _limit("the total size of its files", sum(entry.compress_size for entry in entries.values()), n_bytes)
    missing = [name for name in (MANIFEST, *files.DOCUMENTS) if name not in entries]
    if missing:
        raise BundleError(f"This is not a bundle: it has no {missing[0]}.")
    return entries


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    try:
        files.split_name(name)
    except BundleError as error:
        raise BundleError(f"The bundle is refused: {error}.") from error
    if entry.flag_bits & 0x1:
        raise BundleError(f"The bundle is refused: {name} is encrypted.")
    if files.is_compressed(name):
        _limit(name, entry.file_size, files.MOST_JSON_BYTES)
    elif entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise BundleError(f"The bundle is refused: {name} is compressed; only JSON may be compressed.")


def _limit(what: str, size: int, most: int, unit: str = " bytes") -> None:
    if size > most:
        raise BundleError(f"The bundle is refused: {what} is {size:,}{unit} or more; the limit is {most:,}.")
