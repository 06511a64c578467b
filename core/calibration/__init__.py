"""Calibration block by block: statistics of each layer's inputs after everything before it has been changed.

The entry point is `Context.blocks`.
"""

from core.calibration.block import CalibrationBlock
from core.calibration.coverage import Coverage, count_tokens
from core.calibration.data import CalibrationSet, load_calibration
from core.calibration.inputs import groups_of, input_rows, matrices_of, weight_from_matrices
from core.calibration.sequential import walk
from core.calibration.statistics import Hessian, InputNorms

__all__ = [
    "CalibrationBlock",
    "CalibrationSet",
    "Coverage",
    "Hessian",
    "InputNorms",
    "count_tokens",
    "groups_of",
    "input_rows",
    "load_calibration",
    "matrices_of",
    "walk",
    "weight_from_matrices",
]
