"""Package record."""
