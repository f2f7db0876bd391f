"""Data sets in memory, and how they are cut into batches."""
