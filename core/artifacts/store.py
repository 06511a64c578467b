"""The store of artifacts: a folder, or any URL that fsspec can open. Loads no torch."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs

from core import disk
from core.integrity import EXAMPLES, MANIFEST, DamagedArtifact, find_damage
from core.settings import settings

DRAFT = "draft-"
DRAFT_SECONDS = 2 * 86_400.0  # without a change, after which nobody writes a draft any more


def open_configured_store(folder: str = "") -> "ArtifactStore":
    """The store that the settings name, or the one in a folder of it; what is remote is copied into the home folder."""
    url, cache = settings().artifacts_url, settings().home.absolute() / "cache"
    return ArtifactStore(f"{url}/{folder}" if folder else url, cache / folder)


class ArtifactStore:
    """Artifact folders by key; those on remote storage are copied here when first read."""

    def __init__(self, url: str, cache: Path):
        self.filesystem, self.root = url_to_fs(url)
        self.is_local = isinstance(self.filesystem, fsspec.get_filesystem_class("file"))
        self.cache = Path(self.root) if self.is_local else cache
        self._verified: set[str] = set()  # keys of artifacts whose files were read and found whole

    def address(self, key: str) -> str:
        """The path of an artifact in the store."""
        return f"{key[:2]}/{key}"

    def has(self, key: str) -> bool:
        """Whether the artifact exists and is complete: its manifest is written last."""
        return self.filesystem.exists(f"{self.root}/{self.address(key)}/{MANIFEST}")

    def open(self, key: str) -> Path:
        """The artifact's folder on this host; raises FileNotFoundError if there is none."""
        folder = self.cache / self.address(key)
        if not self.is_local and not (folder / MANIFEST).exists():
            self._download(key, folder)
        if not (folder / MANIFEST).exists():
            raise FileNotFoundError(f"no artifact {key} in {self.root}")
        return folder

    def open_verified(self, key: str) -> Path:
        """The artifact's folder, after verifying its files; reads each of them once.

        A damaged local copy of a remote artifact is downloaded again. Raises FileNotFoundError if there is no
        artifact, DamagedArtifact if its files have changed.
        """
        folder = self.open(key)
        if key in self._verified:
            return folder
        damage = find_damage(folder)
        if damage and not self.is_local:
            self._remove_damaged(folder)
            folder = self.open(key)
            damage = find_damage(folder)
        if damage:
            raise DamagedArtifact(key, damage)
        self._verified.add(key)
        return folder

    def find_whole(self, key: str, report: Callable[[DamagedArtifact], None]) -> Path | None:
        """The folder of an undamaged artifact, else None; a damaged one is discarded and reported."""
        while self.has(key):
            try:
                return self.open_verified(key)
            except FileNotFoundError:  # another process discarded it meanwhile
                return None
            except DamagedArtifact as damaged:
                if self.discard(damaged):
                    report(damaged)
        return None

    def discard(self, damaged: DamagedArtifact) -> bool:
        """Remove what is damaged, and return whether it still existed.

        That is the whole artifact, or only the per-example results if nothing else is damaged. An artifact that
        another process has written there in the meantime is kept.
        """
        key, folder = damaged.key, self.cache / self.address(damaged.key)
        target = f"{self.root}/{self.address(key)}"
        if not damaged.is_lost:
            (folder / EXAMPLES).unlink(missing_ok=True)
            if not self.is_local and self.filesystem.exists(f"{target}/{EXAMPLES}"):
                self.filesystem.rm_file(f"{target}/{EXAMPLES}")
            return True
        manifest = _read_if_there(folder / MANIFEST)
        removed = self._remove_damaged(folder)
        lies_elsewhere = removed and not self.is_local and self.has(key)
        if lies_elsewhere and self.filesystem.cat_file(f"{target}/{MANIFEST}") == manifest:
            self._remove_elsewhere(key)  # another manifest is of an artifact that was computed again meanwhile
        return removed

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """An empty folder to write to, which becomes the artifact of `key`; removed if writing fails.

        If another worker was faster, its copy is kept. Raises DiskFull.
        """
        draft = self._draft()
        folder = self.cache / self.address(key)
        try:
            with disk.writing_to(self.cache):
                yield draft
                self._move(draft, folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        if not self.is_local:
            self._upload(folder, key)
        self._verified.add(key)

    def send_rest(self, key: str) -> None:
        """Copy files that were added to an artifact later to remote storage: per-example results, regressions."""
        if not self.is_local:
            self._upload(self.open(key), key)

    def remove(self, key: str) -> None:
        """Remove an artifact here and on remote storage, manifest first, so that no partial artifact remains."""
        shutil.rmtree(self.cache / self.address(key), ignore_errors=True)
        if not self.is_local:
            self._remove_elsewhere(key)

    def sweep(self, older_than: float = DRAFT_SECONDS) -> int:
        """Remove drafts of killed processes, except those that may still be in use, and return their number."""
        oldest = time.time() - older_than
        left = [draft for draft in self.cache.glob(f"{DRAFT}*") if _last_change(draft) < oldest]
        for draft in left:
            shutil.rmtree(draft, ignore_errors=True)
        return len(left)

    def _draft(self) -> Path:
        with disk.writing_to(self.cache):
            self.cache.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=DRAFT, dir=self.cache))

    def _move(self, draft: Path, folder: Path) -> None:
        """Move a draft to its place once it is on disk; if another process was faster, its folder is kept."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.chmod(0o755)
        disk.sync_tree(draft)
        while True:
            try:
                draft.rename(folder)
            except OSError:  # the folder is there, and not empty
                if not folder.exists():
                    raise
                if (folder / MANIFEST).exists():
                    shutil.rmtree(draft)
                    return
                self._remove_damaged(folder)
            else:
                disk.sync(folder.parent)
                disk.sync(folder.parent.parent)
                return

    def _remove_damaged(self, folder: Path) -> bool:
        """Remove a damaged folder and return whether it existed; an undamaged one that replaced it is kept."""
        draft = self._draft()
        aside = draft / folder.name
        try:
            folder.rename(aside)  # whoever looks now finds no artifact, and never a part of one
        except FileNotFoundError:
            return False
        else:
            damaged = bool(find_damage(aside))
            if not damaged:
                with contextlib.suppress(OSError):  # a third process has written the artifact again
                    aside.rename(folder)
            return damaged
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _remove_elsewhere(self, key: str) -> None:
        target = f"{self.root}/{self.address(key)}"
        if self.filesystem.exists(target):
            if self.has(key):
                self.filesystem.rm_file(f"{target}/{MANIFEST}")
            self.filesystem.rm(target, recursive=True)

    def _download(self, key: str, folder: Path) -> None:
        draft = self._draft()
        try:
            with disk.writing_to(self.cache):
                self.filesystem.get(f"{self.root}/{self.address(key)}/", f"{draft}/", recursive=True)
                self._move(draft, folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def _upload(self, folder: Path, key: str) -> None:
        """Copy missing files, the manifest last, so that nobody takes a partial artifact for a complete one.

        While there is no manifest, files of another size are from an interrupted copy.
        """
        is_whole = self.has(key)
        written = (path for path in folder.rglob("*") if path.is_file() and path.suffix != disk.PARTIAL)
        files = sorted(written, key=lambda path: path.name == MANIFEST)
        for file in files:
            name = f"{self.root}/{self.address(key)}/{file.relative_to(folder)}"
            if self.filesystem.exists(name) and (is_whole or self.filesystem.size(name) == file.stat().st_size):
                continue
            self.filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
            self.filesystem.put_file(str(file), name)


def _read_if_there(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _last_change(folder: Path) -> float:
    """When something was last written in a folder; now, if it disappears in the meantime."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return time.time()
