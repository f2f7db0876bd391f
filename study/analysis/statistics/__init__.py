"""Fits, tests and intervals: arrays in, frozen records out."""
