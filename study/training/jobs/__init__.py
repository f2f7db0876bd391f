"""What a trial trains: the built-in workloads, SimCLR, and a user's own module."""
