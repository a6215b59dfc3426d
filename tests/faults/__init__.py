"""Faults of every kind, each many times: how many were tried, how many were survived, what was lost.

`make test` tries each a few times; `make soak`, which is pytest --soak, tries many.
"""
