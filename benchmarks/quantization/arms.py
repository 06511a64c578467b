"""What is compared: methods, each at the same formats. The peer's methods have the same names with `llm-compressor`."""

from dataclasses import dataclass
from typing import Any

Steps = list[dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Format:
    """Bits, inputs that share a scale (None: all of an output channel), and whether the grid is symmetric."""

    bits: int
    group_size: int | None
    symmetric: bool

    def __str__(self) -> str:
        shared = f"g{self.group_size}" if self.group_size else "channel"
        return f"W{self.bits} {shared} {'symmetric' if self.symmetric else 'affine'}"

    @property
    def settings(self) -> dict[str, Any]:
        """The same as settings of a technique."""
        group = {"granularity": "group", "group_size": self.group_size} if self.group_size else {}
        return {"bits": self.bits, "symmetric": self.symmetric, **group}


FORMATS = [
    Format(bits, group_size, symmetric)
    for bits in (8, 4, 3, 2)
    for group_size in (None, 32)
    for symmetric in ((True, False) if bits in (4, 3) else (bits == 8,))
]


def methods(form: Format) -> dict[str, Steps]:
    """The methods at a format, as steps after the dense training."""
    base = form.settings
    return {
        "RTN": [{"rtn": base}],
        "RTN, MSE range": [{"rtn": {**base, "observer": "mse"}}],
        "imatrix": [{"imatrix": base}],
        "HQQ": [{"hqq": {key: value for key, value in base.items() if key != "symmetric"}}],
        "AWQ": [{"awq": base}],
        "GPTQ": [{"gptq": base}],
        "GPTQ, MSE range": [{"gptq": {**base, "observer": "mse"}}],
        "AdaRound": [{"adaround": base}],
        "AutoRound": [{"autoround": base}],
    }


PEER = ("RTN", "GPTQ", "AWQ")  # that llm-compressor has under these names
