"""The order in which a user's data loader is drawn, and each rank's part of it."""
