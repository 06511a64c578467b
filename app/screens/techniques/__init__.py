"""The Techniques page."""
