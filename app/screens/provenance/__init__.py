"""The Provenance page."""
