"""KV-cache quantization: decoding keeps keys and values in 8, 4 or 2 bits.

Paper: https://arxiv.org/abs/2402.02750 (KIVI): keys have a grid for each channel, values for each token, and the last
tokens stay in full precision. Here a prompt attends to itself as single tokens would, so that scores on whole texts
show what generation loses; both keys and values leave the window a group at a time. `rotate` is R3 of
https://arxiv.org/abs/2405.16406 (SpinQuant). The weights do not change.
"""

from typing import Any, Literal

from pydantic import Field
from torch import nn

from core.context import Context
from core.errors import SpecError
from core.families import Family
from core.nn.attention.full import FullAttention
from core.nn.attention.huggingface_quantized_kv import HuggingFaceQuantizedKv, unsupported
from core.nn.attention.quantized_kv import QuantizedKvAttention
from core.nn.kv_cache import KvFormat
from core.runtimes.decode import decoder_of
from core.subject import Subject
from core.technique import OneShot
from core.techniques.parts import NEEDS_FULL_ATTENTION, OTHER_ATTENTION


class KvCacheQuantization(OneShot):
    """Store the keys and values of decoding in a few bits, except those of the last tokens."""

    family = Family.QUANTIZATION
    paper = "https://arxiv.org/abs/2402.02750"
    leaves = OTHER_ATTENTION
    refuses = NEEDS_FULL_ATTENTION

    bits: Literal[8, 4, 2] = Field(4, description="bits per key and value")
    group_size: int = Field(
        32, ge=8, le=256, multiple_of=8, description="tokens of a key channel, or channels of a value, with one grid"
    )
    window: int = Field(64, ge=0, le=4096, description="last tokens whose keys and values stay in full precision")
    rotate: bool = Field(False, description="R3: multiply queries and keys by a Hadamard matrix, to spread outliers")

    def label(self) -> str:
        """The bits, the window, and the rotation."""
        return f"{self.bits}-bit, last {self.window} full" + (", rotated" if self.rotate else "")

    def check(self, subject: Subject) -> None:
        """The model generates text, and some of its attentions keep all keys and values."""
        self._attentions(subject)

    def apply(self, subject: Subject, context: Context) -> None:
        """Swap the attentions; the projections stay the same, masks included."""
        found = self._attentions(subject)
        length = subject.task.length
        if length is not None and not self._format.n_packed(length):
            message = f"the task's {length} tokens never leave the window of {self.window} tokens: no effect on scores"
            context.record.event("warning", message)
        for name in self._left_out(subject):
            reason = unsupported(subject.model.get_submodule(name))
            context.record.event("info", f"{name} keeps its cache: {reason}")
        rows = []
        for name, attention in found.items():
            subject.replace(name, self._made(attention))
            rows.append({"name": name, "bits": self.bits, **self._bytes(subject, attention)})
        subject.details["layers"] = rows

    @property
    def _format(self) -> KvFormat:
        return KvFormat(self.bits, self.group_size, self.window)

    def _made(self, attention: nn.Module) -> QuantizedKvAttention | HuggingFaceQuantizedKv:
        settings = {**vars(self._format), "rotate": self.rotate}
        if isinstance(attention, FullAttention):
            return QuantizedKvAttention.from_attention(attention, **settings)
        known: Any = attention
        made = HuggingFaceQuantizedKv(**settings, head_dim=known.head_dim)
        return made.to(next(iter(attention.state_dict().values())).device).train(attention.training)

    def _bytes(self, subject: Subject, attention: nn.Module) -> dict[str, float]:
        """What a token's keys and values take, packed and as they were."""
        known: Any = attention
        values = known.v if isinstance(attention, FullAttention) else getattr(known, "v_proj", None)
        width = values.out_features if values is not None else known.c_attn.out_features // 3
        packed = self._format.bytes_per_token(width // known.head_dim, known.head_dim, subject.dtype)
        return {"bytes per token": packed, "bytes per token before": 2 * width * subject.dtype.itemsize}

    def _attentions(self, subject: Subject) -> dict[str, nn.Module]:
        modules = dict(subject.model.named_modules())
        found = {name: m for name, m in modules.items() if _is_full(m) or unsupported(m) is None}
        if not found or decoder_of(subject.model) is None:
            reasons = [unsupported(modules[name]) for name in self._left_out(subject)]
            raise SpecError.of(
                "model",
                type(subject.model).__name__,
                f"has no cache that can be quantized: {reasons[0] if reasons else 'it does not generate text'}",
                "Choose builtin:gpt or a LLaMA-like, OPT or GPT-2 model.",
            )
        return found

    def _left_out(self, subject: Subject) -> list[str]:
        modules = subject.model.named_modules()
        return [n for n, m in modules if type(m).__name__.endswith("Attention") and unsupported(m) and not _is_full(m)]


def _is_full(module: nn.Module) -> bool:
    return type(module) is FullAttention and module.causal
