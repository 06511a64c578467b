"""Which stage to ship: limits, what keeps them, what is recommended, and what moving a limit would change. No torch."""
