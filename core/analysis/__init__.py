"""What measured stages tell together: Pareto frontier, dominance, replicates, differences and decisions. Loads no torch."""
