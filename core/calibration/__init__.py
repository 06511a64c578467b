"""Calibration block by block: what each layer's inputs are like, once everything before it has been changed.

`Context.blocks` is the way in.
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
