"""The View page."""
