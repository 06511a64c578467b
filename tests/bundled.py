"""A finished run with all that a bundle carries, and the files of its stages."""

import base64
import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from sqlalchemy import insert
from sqlalchemy.orm import Session

from core.artifacts.store import MANIFEST, ArtifactStore
from core.measured import Comparison, Fidelity
from core.store import curves, events, runs, stages, users
from core.store.models import Latency, RunStatus, Worker
from tests import factories

DENSE, SMALL = "b" * 64, "c" * 64


def finished_run(s: Session, user: str = "alice", **spec: object) -> int:
    """A run of two stages, with latencies, an operating point, curves, log, notes, tags and a worker."""
    run = factories.submit(s, user=user, **{"name": "small one", **spec})
    worker = Worker(name="host-cpu-1", device="cpu", hardware={"name": "Example CPU", "memory_bytes": 8_000_000_000,
                    "commit": "0123456789abcdef", "versions": {"torch": "2.13"}}, offers={}, provides=[])  # fmt: skip
    s.add(worker)
    s.flush()
    run.status, run.attempt, run.compute_seconds, run.worker_id = RunStatus.DONE, 2, 12.5, worker.id
    run.created_at, run.started_at, run.ended_at = 1_700_000_000.25, 1_700_000_001.1, 1_700_000_061.7
    run.environment = {"hardware": "Example CPU, 8 cores", "software": "torch 2.13", "threads": 8}
    layers = {"layers": [{"name": "head", "sparsity": 0.25}]}
    for position, measured in enumerate(
        (
            factories.measured(
                DENSE, label="train 20 updates", compressed=False, size_bytes=4_000_000, nominal_bits=32
            ),
            factories.measured(SMALL, label="rtn 8-bit", score=94.5, details=layers, scores={"nats": 0.2}),
        ),
        start=1,
    ):
        key = measured.key
        stage_id = stages.add_stage(s, measured, f"{key[:2]}/{key}", 1_001, digest(key))
        reference = stages.find_stage_id(s, DENSE)
        compared: dict[str, object] = {"comparison": None}
        if key == SMALL:
            near = Fidelity(0.02, None, None, 0.3, 97.5, 1.5, 0.5)
            compared = {"comparison": Comparison(-0.5, -1.0, 0.1, 0.2), "fidelity": near}
        stages.attach_stage(s, run.id, position, stage_id, reused=False, reference_stage_id=reference, **compared)
        stages.set_latencies(s, run.id, stage_id, [factories.latency(), factories.latency(batch=64)], reference)
    point = {"name": "exit_threshold", "value": 0.5, "score": 93.0, "score_low": 92.0, "score_high": 94.0, "macs": 7}
    stages.add_operating_points(s, stage_id, [point])
    (known,) = stages.list_operating_points(s, [stage_id])
    early = {**vars(factories.latency(p50_ms=1.1)), "run_id": run.id, "stage_id": stage_id}
    s.execute(insert(Latency), [{**early, "operating_point_id": known.id, "reference_stage_id": reference}])
    curves.add_points(s, run.id, [("1/loss", i, 2.0 - i / 10) for i in range(10)])
    events.add_events(s, run.id, 1, [(5.0, "info", "began"), (6.5, "warning", "slow"), (7.0, "error", "it broke")])
    runs.add_note(s, run.id, users.enrol(s, user).id, "worth shipping ½\nsecond line")
    runs.add_tag(s, run.id, "ship")
    return int(run.id)


def manifest(key: str) -> bytes:
    """The manifest of a stage's artifact."""
    return json.dumps({"format": 1, "of": key}).encode()


def digest(key: str) -> str:
    """Its SHA-256."""
    return hashlib.sha256(manifest(key)).hexdigest()


def keep_files(store: ArtifactStore) -> None:
    """Both stages' artifacts."""
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    wrong = {"index": 3, "image": base64.b64encode(picture.getvalue()).decode(), "label": "7", "predicted": 1,
             "reference_predicted": 7, "nats": 2.5, "reference_nats": 0.01}  # fmt: skip
    for key in (DENSE, SMALL):
        with store.writing(key) as folder:
            save_file({"correct": np.ones(8, np.float32)}, folder / "examples.safetensors")
            save_file({"weight": np.arange(1000, dtype=np.float32)}, folder / "model.safetensors")
            (folder / "report.json").write_text('{"seconds": 1.5, "details": {}}')
            (folder / f"mistakes-{DENSE}.json").write_text(json.dumps([wrong]))
            (folder / "tokenizer").mkdir()
            (folder / "tokenizer" / "vocab.json").write_text('{"a": 1}')
            (folder / "something.partial").write_text("left by a killed process")
            (folder / MANIFEST).write_bytes(manifest(key))


def written(file: Path, pieces: object) -> Path:
    """The pieces of a bundle in a file."""
    file.write_bytes(b"".join(pieces))  # type: ignore[arg-type]
    return file
