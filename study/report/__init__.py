"""Frozen records to figures, a page, files and the terminal."""
