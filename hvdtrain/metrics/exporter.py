"""What one worker tells over HTTP: /metrics to Prometheus, /healthz to whoever restarts what is stuck."""

import errno
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, make_wsgi_app

from hvdtrain.errors import EnvironmentFault
from hvdtrain.metrics.server import Server
from hvdtrain.metrics.tls import Tls

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TRIES = 64
DEADLINE_SECONDS = 10.0  # Prometheus's own scrape timeout, unless told otherwise


class Exporter:
    """Serves from threads on the first free port from `port` on, until `close`. No client can hold up the process."""

    def __init__(
        self,
        registry: CollectorRegistry,
        health: Callable[[], tuple[bool, str]],
        *,
        address: str,
        port: int,
        tls: Tls | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """
        Args:
            health: whether the worker gets on, and a line that says it.
            deadline_seconds: how long a connection may last.

        Raises:
            EnvironmentFault: the address is not this host's, no port from `port` to `port` + 63 is free, or a
                certificate cannot be used.
        """
        context = tls.context() if tls else None
        self._server = _first_free(pages(registry, health), address, port, context, deadline_seconds)
        self._server.start()
        self.port = self._server.server_port
        self.scheme = "https" if tls else "http"

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> "Exporter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pages(registry: CollectorRegistry, health: Callable[[], tuple[bool, str]]) -> "WSGIApplication":
    metrics: WSGIApplication = make_wsgi_app(registry)

    def answer(environ: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        kind = "text/plain; charset=utf-8"
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start)
            case "/healthz":
                well, text = health()
                status = "200 OK" if well else "503 Service Unavailable"
            case "/":
                status, text, kind = "200 OK", '<a href="metrics">metrics</a> <a href="healthz">health</a>', "text/html"
            case _:
                status, text = "404 Not Found", "only /metrics and /healthz are here"
        start(status, [("Content-Type", kind)])
        return [text.encode() + b"\n"]

    return answer


def _first_free(
    application: "WSGIApplication", address: str, port: int, context: ssl.SSLContext | None, deadline_seconds: float
) -> Server:
    for candidate in range(port, port + TRIES):
        try:
            return Server(
                application, address=address, port=candidate, context=context, deadline_seconds=deadline_seconds
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise EnvironmentFault(
                    f"metrics.address = {address}: {error.strerror or error}", remedy="set metrics.address"
                ) from None
    raise EnvironmentFault(
        f"metrics.port = {port}: ports {port} to {port + TRIES - 1} are all taken", remedy="set metrics.port"
    )
