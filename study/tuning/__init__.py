"""The driver: runs the trials of a plan on Ray Tune."""
