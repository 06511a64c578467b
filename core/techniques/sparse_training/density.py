"""How densely each layer of a sparse network is connected: uniformly, or by the Erdős-Rényi-kernel rule.

Source: RigL, https://arxiv.org/abs/1911.11134, section 3 (1) and its code.
"""

from collections.abc import Mapping
from math import prod


def erk_densities(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Density of each weight, in proportion to sum(shape) / prod(shape) of [out, in] or [out, in, height, width].

    The proportion is such that `density` of all weights is kept; a layer that would be more than dense is dense, and
    the others share what it leaves, until none is.
    """
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        others = [name for name in shapes if name not in dense]
        wanted = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        if not others:
            return dict.fromkeys(shapes, 1.0)
        scale = wanted / sum(raw[name] * sizes[name] for name in others)
        largest = max(raw[name] for name in others)
        if scale * largest <= 1:
            return {name: 1.0 if name in dense else scale * raw[name] for name in shapes}
        dense |= {name for name in others if raw[name] == largest}


def active_counts(shapes: Mapping[str, tuple[int, ...]], density: float, distribution: str) -> dict[str, int]:
    """How many weights of each layer are active: round(its density * n), by `distribution` erk or uniform."""
    uniform = dict.fromkeys(shapes, density)
    densities = erk_densities(shapes, density) if distribution == "erk" else uniform
    return {name: round(densities[name] * prod(shape)) for name, shape in shapes.items()}
