"""A ledger to one Summary: trials, points, frontier, spending."""
