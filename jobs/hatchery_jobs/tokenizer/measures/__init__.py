"""Package measures."""
