"""The families of techniques. Loads no torch."""

import enum


class Family(enum.StrEnum):
    """What charts colour by and folders are named after."""

    TRAINING = "training"
    QUANTIZATION = "quantization"
    PRUNING = "pruning"
    SPARSE_TRAINING = "sparse training"
    DISTILLATION = "distillation"
    LOW_RANK = "low rank"
    MIXTURE_OF_EXPERTS = "mixture of experts"
    ATTENTION = "attention"
    ARCHITECTURE = "architecture"
