"""Runtimes execute a model while it is timed. `core.runtimes.catalogue` lists the runtimes by name."""
