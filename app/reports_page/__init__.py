"""What the Reports page is made of."""
