"""How a subject is executed while it is timed. `core.runtimes.catalogue` lists the runtimes by name."""
