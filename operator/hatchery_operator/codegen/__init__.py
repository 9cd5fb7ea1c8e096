"""Package codegen."""
