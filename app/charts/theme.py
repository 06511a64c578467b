"""Colours, shapes and opacities shared by all charts.

Okabe and Ito's palette, extended by Paul Tol's muted one: distinguishable with any colour vision, on light and dark
backgrounds. Shape repeats what colour says.
"""

from core.families import Family

FAMILY_COLOURS = {
    "source": "#8C8C8C",
    Family.TRAINING: "#8C8C8C",
    Family.QUANTIZATION: "#0072B2",
    Family.PRUNING: "#E69F00",
    Family.SPARSE_TRAINING: "#009E73",
    Family.DISTILLATION: "#CC79A7",
    Family.LOW_RANK: "#D55E00",
    Family.MIXTURE_OF_EXPERTS: "#A6761D",
    Family.ATTENTION: "#56B4E9",
    Family.ARCHITECTURE: "#999933",
}
FAMILY_SHAPES = {
    "source": "diamond",
    Family.TRAINING: "diamond",
    Family.QUANTIZATION: "circle",
    Family.PRUNING: "square",
    Family.SPARSE_TRAINING: "triangle-up",
    Family.DISTILLATION: "cross",
    Family.LOW_RANK: "triangle-down",
    Family.MIXTURE_OF_EXPERTS: "triangle-right",
    Family.ATTENTION: "triangle-left",
    Family.ARCHITECTURE: "stroke",
}
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#AA4499", "#999933", "#A6761D")
GOOD, BAD, NEUTRAL = "#009E73", "#D55E00", "#8C8C8C"
PALE, PLAIN = 0.3, 0.95  # opacity of dominated points and of those on the frontier
HEIGHT = 460
