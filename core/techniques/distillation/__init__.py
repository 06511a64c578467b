"""A teacher's answers as what a student learns from."""
