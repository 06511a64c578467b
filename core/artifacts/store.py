"""Where artifacts lie: a folder, or any address that fsspec can open. Loads no torch."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs

MANIFEST = "manifest.json"
DRAFT = "draft-"
DRAFT_SECONDS = 2 * 86_400.0  # without a change, after which nobody writes a draft any more


class ArtifactStore:
    """Artifact folders by key; one on another host's storage is copied here when it is first read."""

    def __init__(self, url: str, cache: Path):
        self.filesystem, self.root = url_to_fs(url)
        self.is_local = isinstance(self.filesystem, fsspec.get_filesystem_class("file"))
        self.cache = Path(self.root) if self.is_local else cache

    def address(self, key: str) -> str:
        """Where an artifact lies below the store."""
        return f"{key[:2]}/{key}"

    def has(self, key: str) -> bool:
        """Whether the artifact is there and whole: its manifest is written last."""
        return self.filesystem.exists(f"{self.root}/{self.address(key)}/{MANIFEST}")

    def open(self, key: str) -> Path:
        """The artifact's folder on this host; raises FileNotFoundError where there is none."""
        folder = self.cache / self.address(key)
        if not self.is_local and not (folder / MANIFEST).exists():
            self._download(key, folder)
        if not (folder / MANIFEST).exists():
            raise FileNotFoundError(f"no artifact {key} in {self.root}")
        return folder

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """An empty folder to write in, which becomes the artifact of `key`; removed where writing it fails.

        Where another worker was faster, its copy stays.
        """
        draft = self._draft()
        try:
            yield draft
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        folder = self.cache / self.address(key)
        self._move(draft, folder)
        if not self.is_local:
            self._upload(folder, key)

    def send_rest(self, key: str) -> None:
        """Copy to storage elsewhere what was written beside an artifact since: results of its examples, mistakes."""
        if not self.is_local:
            self._upload(self.open(key), key)

    def remove(self, key: str) -> None:
        """Remove an artifact wherever it lies, its manifest first: what is left of it is no artifact."""
        shutil.rmtree(self.cache / self.address(key), ignore_errors=True)
        target = f"{self.root}/{self.address(key)}"
        if not self.is_local and self.filesystem.exists(target):
            if self.has(key):
                self.filesystem.rm_file(f"{target}/{MANIFEST}")
            self.filesystem.rm(target, recursive=True)

    def sweep(self, older_than: float = DRAFT_SECONDS) -> int:
        """Remove drafts that processes left which were killed, and return how many; none that may still be written."""
        oldest = time.time() - older_than
        left = [draft for draft in self.cache.glob(f"{DRAFT}*") if _last_change(draft) < oldest]
        for draft in left:
            shutil.rmtree(draft, ignore_errors=True)
        return len(left)

    def _draft(self) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=DRAFT, dir=self.cache))

    @staticmethod
    def _move(draft: Path, folder: Path) -> None:
        """Give a draft its place; where another process was faster, its folder stays."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:  # the folder is there, and not empty
            if not (folder / MANIFEST).exists():
                raise
            shutil.rmtree(draft)

    def _download(self, key: str, folder: Path) -> None:
        draft = self._draft()
        self.filesystem.get(f"{self.root}/{self.address(key)}/", f"{draft}/", recursive=True)
        self._move(draft, folder)

    def _upload(self, folder: Path, key: str) -> None:
        """Copy the files, the manifest last, so that nobody takes half an artifact for a whole one."""
        target = f"{self.root}/{self.address(key)}"
        files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.name == MANIFEST)
        for file in files:
            name = f"{target}/{file.relative_to(folder)}"
            if self.filesystem.exists(name):
                continue
            self.filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
            self.filesystem.put_file(str(file), name)


def _last_change(folder: Path) -> float:
    """When something was last written in a folder; now, where it goes away meanwhile."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return time.time()
