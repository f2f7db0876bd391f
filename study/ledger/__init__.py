"""Append-only records of what was run and what it cost."""
