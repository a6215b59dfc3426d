"""How fast a run will be on k workers, what limits it and what it costs, before anything is paid for. Imports no torch."""
