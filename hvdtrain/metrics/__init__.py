"""What Prometheus sees of a run."""
