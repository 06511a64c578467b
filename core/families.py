"""The families of techniques. Loads no torch."""

import enum


class Family(enum.StrEnum):
    """The family of a technique, which gives its colour in charts and its folder."""

    TRAINING = "training"
    QUANTIZATION = "quantization"
    PRUNING = "pruning"
    SPARSE_TRAINING = "sparse training"
    DISTILLATION = "distillation"
    LOW_RANK = "low rank"
    MIXTURE_OF_EXPERTS = "mixture of experts"
    ATTENTION = "attention"
    ARCHITECTURE = "architecture"
