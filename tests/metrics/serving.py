"""An exporter for a test, and clients of it."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hvdtrain.distributed.activity import Activity
from hvdtrain.metrics.exporter import Exporter
from hvdtrain.metrics.health import health
from hvdtrain.metrics.registry import Metrics
from hvdtrain.metrics.tls import Tls

HOST = "127.0.0.1"
CERTIFICATES = Path(__file__).parent / "certificates"


def pem(name: str) -> str:
    return str(CERTIFICATES / name)


def metrics(run: str = "r1") -> Metrics:
    return Metrics(rank=0, run_info={"run": run}, worker_info={"host": "h"})


def taken(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def run_of_free_ports(length: int) -> int:
    """The first of `length` ports that are free one after the other."""
    for first in range(20000, 60000, length):
        try:
            with ExitStack() as stack:
                for port in range(first, first + length):
                    stack.enter_context(taken(port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@contextmanager
def exporter(of: Metrics | None = None, port: int | None = None, **settings: Any) -> Iterator[Exporter]:
    activity = settings.pop("activity", Activity())
    registry, port = (of or metrics()).registry, port or run_of_free_ports(1)
    with Exporter(registry, partial(health, activity, 60), **{"address": HOST, "port": port, **settings}) as serving:
        yield serving


def tls(**files: str) -> Tls:
    return Tls(**{"certificate": pem("server.pem"), "key": pem("server.key"), **files})


def trusting(client: str = "") -> ssl.SSLContext:
    """A scraper that knows the authority, and shows the certificate of `client`, if any."""
    context = ssl.create_default_context(cafile=pem("authority.pem"))
    if client:
        context.load_cert_chain(pem(f"{client}.pem"), pem(f"{client}.key"))
    return context


def get(port: int, path: str = "/metrics", context: ssl.SSLContext | None = None) -> tuple[int, str, str]:
    """Status, content type and text of a page."""
    connection = (
        http.client.HTTPSConnection(HOST, port, timeout=60, context=context)
        if context
        else http.client.HTTPConnection(HOST, port, timeout=60)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()
