"""Package filters."""
