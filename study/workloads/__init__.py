"""What is trained: the data and models in the package, and the user's own."""
