"""Prometheus and Grafana as docker/monitoring sets them up."""

import sys
from pathlib import Path

from ..multiproc.conftest import launch

__all__ = ["launch"]

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"

# grafana-foundation-sdk needs 3.11; what it is to write is the same everywhere.
collect_ignore = ["test_dashboards.py"] if sys.version_info < (3, 11) else []
