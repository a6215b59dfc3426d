"""A run's state on disk, whole or not there."""
