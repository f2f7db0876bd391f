"""What is trained: data, models, and your own."""
