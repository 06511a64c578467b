"""What all tests share."""

import os
import tempfile
from pathlib import Path

import torch

torch.set_num_threads(1)

# Tests time nothing that counts: they neither wait for the host's measurements nor make others wait.
os.environ.setdefault("SLIMBOARD_LOCK", str(Path(tempfile.gettempdir()) / f"slimboard-tests-{os.getpid()}.lock"))
