"""What each stage needs and what its pods look like: pure functions of the spec."""
