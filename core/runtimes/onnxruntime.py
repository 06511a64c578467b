"""ONNX Runtime on the CPU, for unpacked float32 models."""

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.models.batches import place
from core.nn.replacement import Replacement
from core.runtimes.base import Batch, Refused, Runtime, kernel_of
from core.runtimes.decode import Decoder
from core.tasks.base import inputs, logits_of

OPSET = 17
Optimization = Literal["none", "basic", "extended", "all"]
LEVELS: dict[Optimization, str] = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
TOLERANCE = 1e-3  # of the largest output: what else differs was lost when the model was traced
EXPORT_ERRORS = (  # the conversions of single operators raise whatever occurs to them
    torch.onnx.OnnxExporterError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Logits(nn.Module):
    """A model that takes tensors in a fixed order and returns logits, as an ONNX graph does."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        return logits_of(self.model, dict(zip(self.names, tensors, strict=True)))


class OnnxRuntimeRunner:
    """An exported graph for one input shape; its session uses as many threads as PyTorch when called."""

    kernel = "dense"

    def __init__(self, graph: bytes, optimization: Optimization = "all"):
        self.graph = graph
        self.optimization = optimization
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self._session: Any = None
        self._threads = 0

    def __call__(self, batch: Batch) -> Tensor:
        """One forward pass: the logits."""
        session = self._session_with(torch.get_num_threads())
        return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs(batch).items()})[0])

    def decoder(self) -> Decoder | None:
        """None: the graph has no key-value cache."""
        return None

    def _session_with(self, threads: int) -> Any:
        if self._session is None or threads != self._threads:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[self.optimization])
            # Threads that go on spinning after a run would slow what is timed next.
            options.add_session_config_entry("session.force_spinning_stop", "1")
            self._session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
            self._threads = threads
        return self._session


class OnnxRuntime(Runtime):
    """ONNX Runtime, for unpacked float32 models on a CPU."""

    requires = frozenset({"cpu", "onnx", "onnxruntime"})

    optimization: Optimization = Field("all", description="level of its graph optimizations")

    def load(self, model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch) -> OnnxRuntimeRunner:
        return exported(model, device, dtype, example, self.optimization)


def exported(
    model: nn.Module, device: torch.device, dtype: torch.dtype, example: Batch, optimization: Optimization = "all"
) -> OnnxRuntimeRunner:
    """The model as an ONNX graph for the example's shapes; raises Refused, with the reason, if there is none."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        raise Refused("ONNX Runtime is not installed on this worker (pip install 'slimboard[onnx]')")
    if device.type != "cpu" or dtype != torch.float32:
        raise Refused(f"ONNX Runtime is used for float32 on a CPU, not for {dtype} on {device.type}")
    kernel = kernel_of(model, device, dtype)
    if kernel != "dense":
        raise Refused(f"its packed layers ({kernel or 'no kernel on this worker'}) have no ONNX form")
    obstacle = next((m.no_onnx for m in model.modules() if isinstance(m, Replacement) and m.no_onnx), None)
    if obstacle is not None:
        raise Refused(f"it cannot be exported to ONNX: {obstacle}")
    model = model.to(device).eval()
    example = place(inputs(example), device, dtype)
    runner = OnnxRuntimeRunner(_graph(model, example), optimization)
    for batch in (example, {name: tensor.flip(-1) for name, tensor in example.items()}):  # what depends on the data too
        with torch.inference_mode():
            expected, found = logits_of(model, batch), runner(batch)
        if not (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
            raise Refused("the exported graph's outputs differ from the model's")
    return runner


def _graph(model: nn.Module, example: Batch) -> bytes:
    names = list(example)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of every branch on a shape; the outputs are compared below
        file = Path(folder) / "model.onnx"
        try:
            # The exporter that needs no further package (the newer one imports onnxscript).
            torch.onnx.export(
                _Logits(model, names).eval(),  # the exporter gives every module the mode of the outermost
                tuple(example.values()),
                file,
                input_names=names,
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=False,
            )
        except EXPORT_ERRORS as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise Refused(f"it cannot be exported to ONNX: {reason[0]}") from error
        return file.read_bytes()
