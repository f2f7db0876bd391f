"""Dominance, fronts and hypervolume."""
