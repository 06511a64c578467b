"""Which variant each part of a model gets under a budget, from loss increases measured once. Loads no torch."""
