"""The page and the progress of a study that runs."""
