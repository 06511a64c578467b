"""What pages and commands read of the store."""
