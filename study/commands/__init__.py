"""The commands of `study`, no logic in them."""
