"""Which stage to ship: limits, the recommendation, and the effect of moving a limit. Loads no torch."""
