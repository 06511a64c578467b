"""Queries of the Trade-offs page: points, their columns and filters, and thinning."""
