"""What a run is asked to do: its specification, how it is read, and the schemas that it is checked against. Loads no torch."""
