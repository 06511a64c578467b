"""Where artifacts lie: a folder, or any address that fsspec can open. Loads no torch."""

import shutil
import tempfile
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs

MANIFEST = "manifest.json"


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

    def draft(self) -> Path:
        """An empty folder beside the artifacts, to write a new one in."""
        self.cache.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="draft-", dir=self.cache))

    def publish(self, draft: Path, key: str) -> Path:
        """Make a written draft the artifact of `key`; where another worker was faster, its copy stays."""
        folder = self.cache / self.address(key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.rmtree(draft)
        else:
            draft.chmod(0o755)
            draft.rename(folder)
        if not self.is_local:
            self._upload(folder, key)
        return folder

    def _download(self, key: str, folder: Path) -> None:
        draft = self.draft()
        self.filesystem.get(f"{self.root}/{self.address(key)}/", f"{draft}/", recursive=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(folder)

    def _upload(self, folder: Path, key: str) -> None:
        """Copy the files, the manifest last, so that nobody takes half an artifact for a whole one."""
        target = f"{self.root}/{self.address(key)}"
        files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.name == MANIFEST)
        for file in files:
            name = f"{target}/{file.relative_to(folder)}"
            self.filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
            self.filesystem.put_file(str(file), name)
