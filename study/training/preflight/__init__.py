"""Short runs before a study: a check of a user's module, the pace, the largest micro batch."""
