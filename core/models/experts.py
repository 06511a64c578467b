"""Fused experts of transformers' models: made linear layers, every technique takes them."""

from torch import nn

from core.nn.experts.huggingface import GATE, HuggingFaceExperts, unsupported


def unfuse_experts_(model: nn.Module) -> None:
    """Replace every transformers module of fused experts by equal linear layers, in place; also on the meta device.

    Experts that compute something else stay as they are: each stage reports that its step did not reach them.
    """
    fused = [(name, module) for name, module in model.named_modules() if hasattr(module, GATE)]
    for name, module in fused:
        if unsupported(module) is None:
            model.set_submodule(name, HuggingFaceExperts.of(module))
