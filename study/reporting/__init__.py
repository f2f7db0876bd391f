"""Frozen records to figures, pages, text and files."""
