"""Results that were not made here, from a table."""
