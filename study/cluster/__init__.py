"""The Ray cluster underneath."""
