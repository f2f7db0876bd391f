"""Sentences and tables for the terminal, Markdown and JSON."""
