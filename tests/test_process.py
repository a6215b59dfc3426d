"""Which process it is."""

import os
import subprocess
import sys
import time
from pathlib import Path

from hvdtrain.process import born


def test_a_process_is_born_once_and_after_its_parent() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert 0 < born(os.getpid()) <= born(child.pid)
    assert born(child.pid) == born(child.pid)
    child.communicate(b"\n")
    assert born(child.pid) == 0


def test_one_that_has_ended_is_gone_though_nobody_has_asked_after_it() -> None:
    child = subprocess.Popen(["true"])
    while "\nState:\tZ" not in Path(f"/proc/{child.pid}/status").read_text():
        time.sleep(0.01)
    assert born(child.pid) == 0
    child.wait()


def test_there_is_none_of_an_id_beyond_all() -> None:
    assert born(2**22 + 1) == born(-1) == 0
