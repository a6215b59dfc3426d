"""Real runs to try faults on."""

from ..multiproc.conftest import launch

__all__ = ["launch"]
