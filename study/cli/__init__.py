"""The `study` command line."""
