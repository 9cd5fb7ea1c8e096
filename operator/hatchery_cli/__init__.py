"""The `hatchery` command."""
