"""What is learnt: from rows of tokens to batches, and from a model's output to a loss."""
