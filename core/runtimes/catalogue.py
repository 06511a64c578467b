"""Every runtime by name: to add one, add a line here."""

from dataclasses import dataclass

from pydantic import ValidationError

from core.errors import SpecError, nearest
from core.plugins import find_package, load_plugins
from core.runtimes.base import Runtime
from core.runtimes.compile import Compile
from core.runtimes.eager import Eager
from core.runtimes.onnxruntime import OnnxRuntime
from core.spec.model import RuntimeSpec
from core.spec.pydantic_errors import list_problems

RUNTIMES: dict[str, type[Runtime]] = {
    "eager": Eager,
    "compile": Compile,
    "onnxruntime": OnnxRuntime,
}


@dataclass(frozen=True)
class BoundRuntime:
    """A runtime with its settings, as in a spec."""

    name: str
    runtime: Runtime

    @property
    def title(self) -> str:
        """The name and the settings that differ from their defaults: "compile mode max-autotune"."""
        return f"{self.name} {self.runtime.label()}".strip()

    def software(self, device: str) -> str:
        """The software besides PyTorch on `device` (cpu or gpu), including a plug-in's own version."""
        plug_in = None if self.name in RUNTIMES else find_package("runtimes", self.name)
        parts = [*self.runtime.software(device).split(", "), plug_in]
        return ", ".join(dict.fromkeys(filter(None, parts)))


def offered_runtimes() -> dict[str, type[Runtime]]:
    """The runtimes of this installation, including plug-ins; built-in names take precedence."""
    return load_plugins("runtimes", Runtime) | RUNTIMES


def bind_runtime(spec: RuntimeSpec, field: str) -> BoundRuntime:
    """The runtime with its settings; raises SpecError at `field` for an unknown name or invalid settings."""
    offered = RUNTIMES if spec.name in RUNTIMES else offered_runtimes()
    if spec.name not in offered:
        raise SpecError.of(field, spec.name, "is not a known runtime", nearest(spec.name, offered))
    try:
        return BoundRuntime(spec.name, offered[spec.name].model_validate(spec.settings))
    except ValidationError as error:
        place, settings = f"{field}.{spec.name}", offered[spec.name].model_fields
        raise SpecError(list_problems(error, whole=place, inside=place, settings=settings)) from error
