"""Package readers."""
