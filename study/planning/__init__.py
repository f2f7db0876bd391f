"""The exact list of trials that a config means, and what they can cost."""
