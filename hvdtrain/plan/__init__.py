"""How fast a run will be on k workers, what limits it and what it costs, before it is paid for. Imports no torch."""
