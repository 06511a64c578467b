"""Where data comes from: one source a file, each a settings class with `read`. Loads no torch."""
