"""A worker begins again with the allocator that it wants, once, as the same process; what a user has set stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvdtrain.distributed import allocator

needs_glibc = pytest.mark.skipif(allocator._glibc() < allocator.NEEDS, reason="no glibc of 2.35 or later")

TOLD = """
import os, sys, signal, time
from hvdtrain.distributed import allocator, preempt
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
allocator._has_gpu = lambda: False
allocator.begin_again()
if "wait" in sys.argv:
    time.sleep(float(sys.argv[-1]))
print(preempt.StopRequest().listen().signal)
"""


def plain() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != allocator.VARIABLE and not k.startswith(allocator._OTHERS)}


@needs_glibc
def test_a_worker_begins_again_once_as_the_same_process_with_its_arguments() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TOLD, "a b", "--x=$y"], env=plain(), capture_output=True, text=True, check=True
    )
    first, second, _ = (line.split(" ", 2) for line in (*ran.stdout.splitlines()[:2], "- - -"))
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("None", allocator.wanted({})[allocator.VARIABLE])
    assert first[2] == second[2] == "['a b', '--x=$y']"


@pytest.mark.parametrize("chosen", [{"GLIBC_TUNABLES": ""}, {"MALLOC_ARENA_MAX": "2"}, {"LD_PRELOAD": ""}])
def test_what_the_user_has_set_stays(chosen: dict[str, str]) -> None:
    ran = subprocess.run([sys.executable, "-c", TOLD], env=plain() | chosen, capture_output=True, text=True, check=True)
    assert len(ran.stdout.splitlines()) == 2


@needs_glibc
def test_a_signal_on_the_way_is_kept_until_the_program_listens() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TOLD, "wait", "1.0"], env=plain(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    for _ in range(2):
        process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=30)[0].strip() == "SIGUSR2"
    assert process.returncode == 0


@needs_glibc
def test_freed_memory_is_kept() -> None:
    """Page faults of taking and freeing 64 MiB again and again, as a step does with its activations."""
    program = (
        "import resource, torch; torch.set_num_threads(1)\n"
        "def use(): torch.ones(16 * 2**20)\n"
        "use(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10): use()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = {}
    for name, more in (("plain", {}), ("kept", allocator.wanted({}))):
        ran = subprocess.run(
            [sys.executable, "-c", program], env=plain() | more, capture_output=True, text=True, check=True
        )
        faults[name] = int(ran.stdout)
    assert faults["plain"] > 10_000  # 10 x 16,384 pages of 4 KiB
    assert faults["kept"] < faults["plain"] / 20


def test_the_verb_that_trains_begins_again_and_no_other(tmp_path: Path) -> None:
    program = (
        "import sys; from hvdtrain import cli; from hvdtrain.distributed import allocator\n"
        "allocator.begin_again = lambda: print('again')\n"
        "sys.exit(cli.main())"
    )
    told = {}
    for verb in ("train", "config"):
        command = [sys.executable, "-c", program, verb, "--help"]
        told[verb] = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert told["train"].startswith("again\n")
    assert "again\n" not in told["config"]
