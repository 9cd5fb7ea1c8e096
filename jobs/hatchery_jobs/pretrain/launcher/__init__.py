"""Package launcher."""
