"""Mixtures of experts: feed-forward networks of which each token meets only a few."""
