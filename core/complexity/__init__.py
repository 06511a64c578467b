"""How the cost of each architecture grows with the length of its input: measured, and fitted as a power of it.

`report` and `fit` load no torch; `survey` takes the measurements.
"""
