"""Queries of the store for pages and commands."""
