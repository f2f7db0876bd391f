"""Many trials on Ray Tune."""
