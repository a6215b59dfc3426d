"""Which process it is."""

import os
import subprocess
import sys

from hvdtrain.process import born


def test_a_process_is_born_once_and_after_its_parent() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert 0 < born(os.getpid()) <= born(child.pid)
    assert born(child.pid) == born(child.pid)
    child.communicate(b"\n")
    assert born(child.pid) == 0


def test_there_is_none_of_an_id_beyond_all() -> None:
    assert born(2**22 + 1) == born(-1) == 0
