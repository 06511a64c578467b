"""Text of numbers, units, conditions and stages."""
