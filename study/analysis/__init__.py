"""Pure functions from ledger rows or tables to frozen records."""
