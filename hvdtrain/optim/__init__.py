"""Learning rates and the update of the weights."""
