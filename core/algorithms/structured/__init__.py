"""What structured pruning shares: which parts of a network belong together, what they matter, and cutting them out."""
