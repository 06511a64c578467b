"""One trial: a dense model quantized by some steps, and how close to the dense model it stays."""

import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.quantization.arms import Steps
from benchmarks.quantization.vehicles import VEHICLES
from benchmarks.sparsity.outcomes import execution_of, last_stage
from core.artifacts import artifact
from core.context import Context
from core.engine.pipeline import Execution
from core.engine.recording import MemoryRecord
from core.measure.fidelity import FidelityMeter
from core.measure.score import evaluate, principal
from core.measure.size import tensor_payload
from core.measured import Fidelity
from core.spec.model import RunSpec, StepSpec
from core.subject import Subject
from core.technique import OneShot
from core.techniques.catalogue import technique

BATCH = 64


@dataclass(frozen=True)
class Trial:
    """What quantizing took and left. Bytes are those of packed tensors; the peer's are not known."""

    fidelity: Fidelity
    score: float
    seconds: float  # of processor time, for calibration and quantization
    size: int | None
    peak_bytes: int | None = None  # resident memory of a process that does nothing else


def dense_run(vehicle: str, seed: int, folder: Path) -> Execution:
    """The run that trains a vehicle; what an earlier call left in `folder` is found again."""
    chosen = VEHICLES[vehicle]
    train = {"train": {**chosen.training, "evaluations": 0}}
    spec = {"model": chosen.source(folder), "task": chosen.task, "seed": seed, "recipe": [train]}
    return execution_of(RunSpec.parse(spec), folder, "cpu")


def load_dense(execution: Execution) -> Subject:
    """The trained dense model."""
    return artifact.load_subject(last_stage(execution), execution.task, execution.device)


def quantize(execution: Execution, steps: Steps) -> tuple[Subject, float]:
    """The quantized model, and the processor seconds that it took."""
    subject = load_dense(execution)
    began = time.process_time()
    for position, step in enumerate(steps):
        bound = technique(StepSpec.model_validate(step), f"recipe[{position}]")
        assert isinstance(bound, OneShot)
        bound.check(subject)
        bound.apply(subject, context_of(execution))
    return subject, time.process_time() - began


def context_of(execution: Execution) -> Context:
    """What the steps of a trial get: the same calibration examples for all of them."""
    return Context(execution.device, execution.task, f"{execution.spec.seed}", MemoryRecord(), refuse_teacher)


def judge(execution: Execution, model: nn.Module, seconds: float, size: int | None) -> Trial:
    """Compare a quantized model with the dense one on the test split."""
    meter = FidelityMeter(load_dense(execution).model, execution.device)
    examples = evaluate(model, execution.task, device=execution.device, batch_size=BATCH, watch=meter.watch)
    return Trial(meter.result(), principal(execution.task, examples), seconds, size)


def carry_out(execution: Execution, steps: Steps) -> Trial:
    """Quantize and judge."""
    subject, seconds = quantize(execution, steps)
    return judge(execution, subject.model, seconds, packed_bytes(subject))


def packed_bytes(subject: Subject) -> int:
    """Bytes of the tensors that an artifact of the model holds."""
    with tempfile.TemporaryDirectory(prefix="slimboard-quantization-") as folder:
        path = Path(folder) / artifact.PACKED
        tensors = {name: tensor.contiguous() for name, tensor in _tensors_once(subject.model)}
        save_file(tensors, path)
        return tensor_payload(path)


def calibration_tokens(execution: Execution, n_examples: int) -> Tensor:
    """Windows [n, length] that a calibrating step draws, for the peer."""
    return torch.cat([batch["input_ids"] for batch in context_of(execution).calibration(n_examples)])


def peak_bytes() -> int:
    """The most resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _tensors_once(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            yield name, tensor


def refuse_teacher(reference: object) -> nn.Module:
    """In the place of `Context.resolve`: no step of a comparison has a teacher."""
    raise LookupError(f"no step of this comparison has a teacher: {reference}")
