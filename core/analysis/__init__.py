"""Analysis of measured stages: frontier, dominance, replicates, differences, decisions. Loads no torch."""
