"""Package dedup."""
