"""Clients that are silent, slow or never read, against a server in a process that has better things to do."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hvdtrain.distributed.activity import Activity
from hvdtrain.metrics.exporter import pages
from hvdtrain.metrics.health import health
from hvdtrain.metrics.server import MOST_CONNECTIONS, Server
from tests.metrics.serving import HOST, get, metrics, run_of_free_ports, tls, trusting

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HOSTILE = 50
FOR_EVER = 3600.0
MORE_THAN_ANY_BUFFER = b"." * 2**25

pytestmark = pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])


@contextmanager
def serving(secure: bool, deadline_seconds: float = FOR_EVER) -> Iterator[int]:
    """The port of a server with the exporter's pages, and one that is too long for a client that does not read."""
    usual = pages(metrics().registry, partial(health, Activity(), 600))

    def application(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/long":
            return usual(environ, start)
        start("200 OK", [])
        return [MORE_THAN_ANY_BUFFER]

    context, port = tls().context() if secure else None, run_of_free_ports(1)
    server = Server(application, address=HOST, port=port, context=context, deadline_seconds=deadline_seconds)
    server.start()
    try:
        yield port
    finally:
        server.close()


@contextmanager
def hostile_clients(port: int, secure: bool) -> Iterator[list[socket.socket]]:
    """50 of three kinds, at it until the end of the block."""
    with ExitStack() as stack:
        clients, slow, over = [], [], threading.Event()
        for number in range(HOSTILE):
            client = stack.enter_context(socket.create_connection((HOST, port)))
            if number % 3 == 1:
                slow.append(client)
                if secure and number % 2:
                    client.sendall(b"\x16\x03\x01\x40\x00")  # begins a handshake of 16 KiB
                elif secure:
                    slow[-1] = client = stack.enter_context(trusting().wrap_socket(client, server_hostname=HOST))
            if number % 3 == 2:
                if secure:
                    client = stack.enter_context(trusting().wrap_socket(client, server_hostname=HOST))
                client.sendall(b"GET /long HTTP/1.0\r\n\r\n")
            clients.append(client)
        dripping = threading.Thread(target=drip, args=(slow, over))
        dripping.start()
        stack.callback(dripping.join)
        stack.callback(over.set)
        yield clients


def drip(clients: list[socket.socket], over: threading.Event) -> None:
    """A byte now and then, never a whole request."""
    while not over.wait(0.1):
        for client in clients:
            with suppress(OSError):
                client.sendall(b"G")


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def scrape(port: int, secure: bool) -> None:
    context = trusting() if secure else None
    assert "hvdtrain_steps_total 0.0" in get(port, "/metrics", context)[2]
    assert get(port, "/healthz", context)[0] == 200


def test_others_are_served_while_many_hold_on_and_nothing_is_spent_on_those(secure: bool) -> None:
    before = threading.active_count()
    with serving(secure) as port, hostile_clients(port, secure):
        held = before + 2 + HOSTILE  # the server's own and the dripping one
        wait_until(lambda: threading.active_count() == held)
        for _ in range(5):
            scrape(port, secure)
        wait_until(lambda: threading.active_count() == held)
        began, burnt = time.perf_counter(), time.process_time()
        time.sleep(1)
        assert (time.process_time() - burnt) / (time.perf_counter() - began) < 0.05
        assert threading.active_count() == held
    wait_until(lambda: threading.active_count() == before)


def test_after_the_deadline_they_are_gone_whatever_they_do(secure: bool) -> None:
    before = threading.active_count()
    with serving(secure, deadline_seconds=2) as port, hostile_clients(port, secure) as clients:
        wait_until(lambda: threading.active_count() == before + 2)
        for client in clients:
            client.settimeout(60)
            with suppress(ConnectionError, ssl.SSLError):
                while client.recv(2**20):
                    pass
        scrape(port, secure)


def test_of_too_many_the_oldest_goes_and_the_newest_is_served(secure: bool) -> None:
    before = threading.active_count()
    with serving(secure) as port, ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((HOST, port))) for _ in range(MOST_CONNECTIONS + 5)]
        scrape(port, secure)
        for client in clients[:5]:
            client.settimeout(60)
            assert client.recv(1) == b""
        wait_until(lambda: threading.active_count() <= before + 1 + MOST_CONNECTIONS)
        clients[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            clients[-1].recv(1)


# Of a client that is gone already ssl leaves the socket to the garbage collector, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_clients_that_go_at_once_leave_nothing_behind(secure: bool, capfd: pytest.CaptureFixture[str]) -> None:
    before, files = threading.active_count(), open_files()
    with serving(secure) as port:
        for request in (b"", b"GET /metrics HTTP/1.0\r\n\r\n", b"GET /long HTTP/1.0\r\n\r\n", b"\x00" * 100) * 5:
            client = socket.create_connection((HOST, port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
            client.sendall(request)
            client.close()
        scrape(port, secure)
        wait_until(lambda: threading.active_count() == before + 1)
    assert open_files() <= files
    assert capfd.readouterr() == ("", "")
