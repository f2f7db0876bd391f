"""What the literature says of batch size, and what a study's own trials say of it."""
