"""What the Provenance page is made of."""
