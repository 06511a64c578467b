"""Calibration block by block: statistics of each layer's inputs after everything before it has been changed.

The entry point is `Context.blocks`.
"""

from core.calibration.inputs import groups_of, input_rows, matrices_of, weight_from_matrices
from core.calibration.sequential import CalibrationBlock, walk
from core.calibration.statistics import Hessian, InputNorms

__all__ = [
    "CalibrationBlock",
    "Hessian",
    "InputNorms",
    "groups_of",
    "input_rows",
    "matrices_of",
    "walk",
    "weight_from_matrices",
]
