"""A user's module and data, by import path."""
