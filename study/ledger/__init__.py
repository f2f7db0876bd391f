"""The append-only record of what was run and what it cost."""
