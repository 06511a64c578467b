"""Weight sparsity compared: which method loses least, on which model, beyond the noise of examples and seeds."""
