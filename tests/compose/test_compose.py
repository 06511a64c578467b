import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run.sh")


def has_engine() -> bool:
    return (
        shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    )


@pytest.mark.compose
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not has_engine(), reason="there is no Docker engine here")
def test_compose_runs_recipes_and_survives_restarts():
    done = subprocess.run([SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "everything holds" in done.stdout
