"""The driver: many trials on Ray Tune."""
