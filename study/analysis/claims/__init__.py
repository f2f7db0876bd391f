"""Claims of the literature about batch size, and what the trials of a study say about each."""
