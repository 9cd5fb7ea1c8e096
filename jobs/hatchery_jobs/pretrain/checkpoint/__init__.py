"""Package checkpoint."""
