"""Hypothesis without deadlines, because a shared machine is slow at times."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
