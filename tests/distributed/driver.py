"""Horovod's own elastic driver, in this process, over workers that are nothing but names."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from horovod.runner.elastic.discovery import HostDiscovery
from horovod.runner.http.http_server import RendezvousServer

from hvdtrain.distributed.rendezvous import PORT, Driver

LAUNCHED = {
    "HOROVOD_ELASTIC": "1",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
    "HOROVOD_HOSTNAME": "a",
    "HOROVOD_LOCAL_RANK": "0",
}
SECONDS = 20.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Hosts(HostDiscovery):  # type: ignore[misc]
    def __init__(self, slots: dict[str, int]) -> None:
        self.slots = slots

    def find_available_hosts_and_slots(self) -> dict[str, int]:
        return dict(self.slots)


@dataclass
class Cluster:
    hosts: Hosts
    port: int
    server: RendezvousServer
    elastic: Any = None
    started: list[str] = field(default_factory=list)
    _ends: dict[str, threading.Event] = field(default_factory=dict)
    _codes: dict[str, int] = field(default_factory=dict)

    def launch(self, slot: Any, events: list[threading.Event]) -> tuple[int, float]:
        """What horovodrun calls, in a thread for each worker: until that ends."""
        name = f"{slot.hostname}:{slot.local_rank}"
        over = self._ends[name] = threading.Event()
        self.started.append(name)
        while not (over.wait(0.01) or any(event.is_set() for event in events)):
            pass
        return self._codes.get(name, 0), time.time()

    def end(self, name: str, code: int) -> None:
        self._codes[name] = code
        self._ends[name].set()

    def driver(self, name: str) -> Driver:
        """As the worker of that name finds it."""
        host, slot = name.split(":")
        return Driver.of({**LAUNCHED, PORT: str(self.port), "HOROVOD_HOSTNAME": host, "HOROVOD_LOCAL_RANK": slot})

    def kept(self, scope: str, key: str) -> bytes | None:
        found: bytes | None = self.server._httpd.cache.get(scope, {}).get(key)
        return found


class Start(Protocol):
    def __call__(self, *, most: int = 9, **slots: int) -> Cluster: ...
