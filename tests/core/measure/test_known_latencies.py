"""Which recorded latencies a stage takes over: only those that this run would measure in the same way."""

from dataclasses import replace

import pytest
import torch

from core.engine.recording import MemoryRecord
from core.measure.hardware import hardware_name
from core.measure.stage import StageMeasurer, _software
from core.measured import FoundStage, LatencyRow
from core.runtimes import base
from core.spec.model import MeasureSpec

ROW = LatencyRow(
    hardware=hardware_name("cpu"),
    software=_software(),
    runtime="eager",
    kernel="dense",
    dtype="float32",
    threads=1,
    batch=1,
    length=16,
    phase="prefill",
    p50_ms=1.0,
    p95_ms=1.0,
    reference_p50_ms=None,
    ratio=None,
    ratio_low=None,
    ratio_high=None,
    repeats=30,
    disturbed=False,
    contention=0.0,
)


class Tokens:
    """A language task's test split: windows of 16 tokens."""

    def split(self, name):
        return self

    def __len__(self):
        return 4

    def batch(self, indices):
        return {"input_ids": torch.zeros(len(indices), 16, dtype=torch.int64)}


def taken_over(rows, *, reference_key="r", **asked):
    measurer = StageMeasurer(MeasureSpec(threads=1, **asked), Tokens(), torch.device("cpu"), MemoryRecord())
    return measurer._known_latencies(FoundStage(1, None, None, [("r", row) for row in rows]), reference_key)


def test_rows_of_the_same_conditions_are_taken_over():
    decode = replace(ROW, phase="decode")
    assert taken_over([ROW, decode, replace(ROW, batch=64)]) == [ROW, decode]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        (ROW, {"length": 8}),
        (ROW, {"repeats": 100}),
        (ROW, {"batch_sizes": [1, 64]}),
        (ROW, {"runtimes": ["compile"]}),
        (ROW, {"reference_key": "another"}),
        (replace(ROW, threads=2), {}),
        (replace(ROW, hardware="another machine"), {}),
        (replace(ROW, software="torch 1.0"), {}),
        (replace(ROW, runtime="compile"), {"runtimes": [{"compile": {"mode": "max-autotune"}}]}),
        (replace(ROW, disturbed=True), {}),
    ],
)
def test_others_are_measured_anew(row, asked):
    assert taken_over([row], **asked) == []


def test_a_time_of_another_version_of_its_runtime_is_measured_anew(monkeypatch):
    versions = {"onnx": "1.17.0", "onnxruntime": "1.20.0"}
    monkeypatch.setattr(base, "installed_version", versions.get)
    rows = [ROW, replace(ROW, runtime="onnxruntime", software=f"{_software()}, onnx 1.17.0, onnxruntime 1.20.0")]
    both = {"runtimes": ["eager", "onnxruntime"]}
    assert taken_over(rows, **both) == rows
    versions["onnxruntime"] = "1.21.0"
    assert taken_over(rows, **both) == []
    assert taken_over(rows) == [ROW]  # plain PyTorch is the same as before
    assert taken_over([ROW, replace(rows[1], software=_software())], **both) == []  # recorded before versions were kept


def test_a_phase_that_was_disturbed_is_not_left_out():
    assert taken_over([ROW, replace(ROW, phase="decode", disturbed=True)]) == []
