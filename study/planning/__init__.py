"""The exact list of trials that a config means, and the most that they can cost."""
