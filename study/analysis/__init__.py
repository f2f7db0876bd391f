"""Pure functions from ledger rows to frozen records."""
