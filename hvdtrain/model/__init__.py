"""Networks by name, as untrained modules."""
