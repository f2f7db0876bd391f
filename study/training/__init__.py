"""One rank of a trial: data, model, optimizer and training loop."""
