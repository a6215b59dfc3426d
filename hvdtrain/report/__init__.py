"""What a run did, how well it scaled and why not better: told from the files of its directory alone.

Nothing here needs the run to be alive, a GPU, torch or Prometheus: a login node will do.
"""
