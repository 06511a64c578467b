"""What measured stages tell together: frontier, dominance, replicates, differences, decisions. Loads no torch."""
