import os
import time

from core.settings import settings
from worker import leftovers
from worker.claim import find_checkpoints


def test_old_checkpoints_and_drafts_go_and_young_ones_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMBOARD_HOME", str(tmp_path))
    settings.cache_clear()
    try:
        folder = find_checkpoints()
        folder.mkdir(parents=True)
        for name in ("old.safetensors", "old.partial", "young.safetensors"):
            (folder / name).write_text("")
        (folder.parent / "draft-old").mkdir()
        long_ago = time.time() - 40 * 86_400
        for path in (*folder.glob("old*"), folder.parent / "draft-old"):
            os.utime(path, (long_ago, long_ago))
        assert leftovers.sweep() == 3
        assert [path.name for path in folder.iterdir()] == ["young.safetensors"]
        assert not (folder.parent / "draft-old").exists()
    finally:
        settings.cache_clear()
