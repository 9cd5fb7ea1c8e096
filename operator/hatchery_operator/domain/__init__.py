"""Package domain."""
