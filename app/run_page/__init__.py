"""Parts of the run page, each named for what it shows."""
