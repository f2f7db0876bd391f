"""Schedulers replayed on full learning curves."""
