"""Sources of data: one file per source, each a settings class with `read`. Loads no torch."""
