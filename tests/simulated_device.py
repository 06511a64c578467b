"""A device `sim` that computes on the CPU and refuses to mix tensors of two devices, as a GPU does.

Importing this module registers the device for the whole process; `active()` makes it usable. It finds faults that
otherwise show only on a GPU: an index, mask or constant that stays on the CPU, `.numpy()` of a device tensor, a CPU
generator that draws on the device. It does not test CUDA kernels, numerics, memory or speed.

It uses PyTorch's experimental Python backend (`torch.utils.backend_registration`, PyTorch 2.11 to 2.13).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import safetensors
import safetensors.torch
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "sim"
# A GPU tensor may be indexed by CPU tensors.
INDEXING = ("aten.index.Tensor", "aten.index_put", "aten._index_put_impl_", "aten._unsafe_index")


class _Module(_DummyBackendModule):
    """The functions that PyTorch expects of a backend's module (`torch.sim`)."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16, torch.float32]

    def synchronize(self, device: Any = None) -> None: ...

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


_setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)


class SimTensor(torch.Tensor):
    """A tensor on `sim`; `raw` is the CPU tensor that holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "SimTensor":
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=DEVICE
        )
        made.raw = raw
        return made

    def __init__(self, raw: torch.Tensor): ...

    def tolist(self) -> Any:
        return self.raw.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert a {NAME} tensor to numpy: copy it to the CPU first")

    __array__ = numpy

    def __repr__(self, **_: Any) -> str:
        return f"{self.raw!r} on {NAME}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, dict(kwargs or {}))


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, dict(kwargs or {}))


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the raw tensors; its result is on `sim` where an argument is, or where it asks for it."""
    target = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if target == NAME:
        kwargs["device"] = torch.device("cpu")
    tensors = [a for a in pytree.tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    on_sim = any(isinstance(t, SimTensor) for t in tensors)
    _require_one_device(str(func), tensors, target)
    if kwargs.get("generator") is not None and (target == NAME or (on_sim and target is None)):
        raise RuntimeError(f"{func}: expected a {NAME} generator, found one of the CPU")
    args, kwargs = pytree.tree_map(lambda a: a.raw if isinstance(a, SimTensor) else a, (args, kwargs))
    out = func(*args, **kwargs)
    if not func._schema.returns:  # a list of tensors that was changed in place
        return None
    first = func._schema.arguments[0] if func._schema.arguments else None
    if first is not None and first.alias_info is not None and first.alias_info.is_write:
        return _reshaped(tensors[0])
    if (target is not None and target != NAME) or not (on_sim or target == NAME):
        return out
    return pytree.tree_map(lambda t: SimTensor(t) if type(t) is torch.Tensor else t, out)


def _reshaped(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that was changed in place, its shape that of its raw tensor (after `squeeze_` and the like)."""
    raw = getattr(tensor, "raw", tensor)
    if tensor.shape != raw.shape or tensor.stride() != raw.stride():
        with torch._C._DisableTorchDispatch():
            torch.ops.aten.as_strided_(tensor, raw.shape, raw.stride(), raw.storage_offset())
    return tensor


def _require_one_device(name: str, tensors: list[torch.Tensor], target: str | None) -> None:
    """Raise RuntimeError where `sim` tensors meet CPU tensors; scalars, copies and indices may come from the CPU."""
    on_sim = any(isinstance(t, SimTensor) for t in tensors)
    indexing = name.startswith(INDEXING) and isinstance(tensors[0], SimTensor)
    if not on_sim or target is not None or name == "aten.copy_.default" or indexing:
        return
    elsewhere = [t for t in tensors if not isinstance(t, SimTensor) and t.dim()]
    if elsewhere:
        raise RuntimeError(f"{name}: expected all tensors on one device, found {NAME} and {elsewhere[0].device}")


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> torch.Tensor:
    return SimTensor(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return SimTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    getattr(target, "raw", target).copy_(getattr(source, "raw", source))
    return target


_autocast = torch.library.Library("_", "IMPL")
_autocast.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # autocast is allowed and changes nothing
_library = torch.library.Library("aten", "IMPL")  # what PyTorch's C++ code creates and fills on the device
_library.impl("empty.memory_format", _empty, "PrivateUse1")
_library.impl("empty_strided", _empty_strided, "PrivateUse1")
_library.impl("_copy_from", _copy_from, "PrivateUse1")


def _without_gradients(mode: bool) -> Any:
    """In place of inference mode, whose tensors a wrapper such as `SimTensor` cannot hold."""
    return torch.no_grad()


class _SafeOpen:
    """`safetensors.safe_open` that can also read to `sim`."""

    def __init__(self, path: Any, framework: str, device: Any = "cpu", **options: Any):
        self._to_sim = str(device).startswith(NAME)
        self._file = safetensors.safe_open(path, framework, device="cpu" if self._to_sim else device, **options)

    def __enter__(self) -> "_SafeOpen":
        self._opened = self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)

    def get_tensor(self, name: str) -> torch.Tensor:
        tensor = self._opened.get_tensor(name)
        return tensor.to(NAME) if self._to_sim else tensor

    def get_tensors(self) -> dict[str, torch.Tensor]:
        return {name: self.get_tensor(name) for name in self._opened.keys()}  # noqa: SIM118  not a dict


@contextmanager
def active(*readers: Any) -> Iterator[torch.device]:
    """Inside, `sim` is a device like any other.

    `readers` are modules that imported `safe_open` by its name; in them, too, it can read to the device.
    """
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch._C, "_InferenceMode", _without_gradients))
        for module in (safetensors.torch, *readers):
            stack.enter_context(patch.object(module, "safe_open", _SafeOpen))
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, False)
        torch.__future__.set_swap_module_params_on_conversion(True)  # else `module.to` unties shared parameters
        stack.enter_context(_Mode())
        yield DEVICE
