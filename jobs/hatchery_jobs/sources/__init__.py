"""Where text comes from: files and datasets, read document by document."""
