"""Rank 0's watch over k workers: `python watched.py K SECONDS` prints what it costs, as JSON.

The watchdog is the real one, with K - 1 real TCP connections from followers.py, each with a beat every second or two.
Bytes and segments are the kernel's counts; CPU is that of the watchdog's thread.
"""

import gc
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.chief import Chief, Worker
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.hub import Hub
from hvdtrain.distributed.watchdog import Watchdog

FOLLOWERS = Path(__file__).with_name("followers.py")
END_SECONDS = 60.0


class Led(SoloComm):
    """Rank 0 of `size`, the others' ends of the watch being in another process."""

    def __init__(self, size: int) -> None:
        self.size, self.joined = size, 0
        command = [sys.executable, str(FOLLOWERS), str(size)]
        self.others = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.others.stdin
        assert self.others.stdout
        self.to, self.out = self.others.stdin, self.others.stdout

    def broadcast_object(self, value: Any, name: str) -> Any:
        self.to.write(json.dumps(asdict(value)) + "\n")
        self.to.flush()
        return value

    def gather(self, value: Any, name: str) -> list[Any]:
        if isinstance(value, Worker):
            return [Worker(value.host, value.pid + rank) for rank in range(self.size)]
        self.joined = int(self.out.readline())  # whom it asks then: who has come
        return [True] * self.size

    def end(self) -> None:
        """All others, in the same moment."""
        self.to.close()
        self.others.wait()


@contextmanager
def watching(size: int) -> Iterator[tuple[Led, Watchdog]]:
    with tempfile.TemporaryDirectory(prefix="watched-") as folder:
        led = Led(size)
        try:
            with Watchdog(led, Activity(), silence_seconds=300.0, run_dir=Path(folder)) as watchdog:
                yield led, watchdog
        finally:
            led.others.kill()
            led.others.wait()
            led.to.close()
            led.out.close()


def main() -> None:
    print(json.dumps(figures(int(sys.argv[1]), float(sys.argv[2]))))


def figures(size: int, seconds: float) -> dict[str, float]:
    """By the names of growth.py, in bytes."""
    files, threads = open_files(), threading.active_count()
    with watching(size) as (led, watchdog):
        clock = time.pthread_getcpuclockid(watchdog._thread.ident or 0)
        hub = hub_of(watchdog)
        entry = time.clock_gettime(clock)
        told = {
            "watch: connections": led.joined,
            "watch: files open": open_files() - files - 2,  # less the two pipes to followers.py
            "watch: threads": threading.active_count() - threads,
            "watch: CPU seconds until all have come": entry,
        }
        time.sleep(1)
        before, cpu, began = traffic(hub), time.clock_gettime(clock), time.monotonic()
        time.sleep(seconds)
        after, cpu_after, passed = traffic(hub), time.clock_gettime(clock), time.monotonic() - began
        told |= {name: (after[name] - before[name]) / passed for name in after}
        told["watch: % of a core"] = 100 * (cpu_after - cpu) / passed
        led.end()
        until_all_have_gone(hub)
        told["watch: CPU seconds when all go at once"] = time.clock_gettime(clock) - cpu_after
    told["watch: MB of memory"] = memory(size)
    return told


def hub_of(watchdog: Watchdog) -> Hub:
    side = watchdog._side
    assert isinstance(side, Chief)
    assert side._hub
    return side._hub


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def until_all_have_gone(hub: Hub) -> None:
    deadline = time.monotonic() + END_SECONDS
    while hub.connected and time.monotonic() < deadline:
        time.sleep(0.05)


def traffic(hub: Hub) -> dict[str, int]:
    """Of all connections since they began (tcp_info of linux/tcp.h): bytes that arrived, segments both ways."""
    received = sent = segments = 0
    for channel in list(hub._peers.values()):
        info = channel.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
        acknowledged, arrived, out, into = struct.unpack_from("=QQII", info, 120)
        sent, received, segments = sent + acknowledged, received + arrived, segments + out + into
    return {
        "watch: kB received a second": received,
        "watch: kB sent a second": sent,
        "watch: segments a second": segments,
    }


def memory(size: int) -> int:
    """Bytes of Python's that the watch holds once all have spoken."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    with watching(size):
        time.sleep(1.5)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before


if __name__ == "__main__":
    main()
