"""Real runs to try faults on."""

from ..multiproc.conftest import digits, launch

__all__ = ["digits", "launch"]
