"""What a run is asked to do: the spec, how it is read, and the schemas it is checked against. Loads no torch."""
