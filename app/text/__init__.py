"""How things read: numbers, units, conditions, stages."""
