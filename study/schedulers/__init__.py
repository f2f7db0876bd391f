"""Search policies: which trial runs next, and which one stops early."""
