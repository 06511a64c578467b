"""Fewer bits a weight, and integer arithmetic."""
