"""Package diagnosis."""
