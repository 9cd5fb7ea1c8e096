"""Package progress."""
