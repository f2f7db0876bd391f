"""A shared machine is slow at times: no deadlines."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
