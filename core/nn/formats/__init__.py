"""Number formats beyond integer grids: what their codes mean, how codes are packed, and how scales are stored."""
