"""The HTTP server of one worker's metrics."""

import errno
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from hvdtrain.errors import EnvironmentFault

TRIES = 64


class Exporter:
    """Serves `registry` from a thread on the first free port from `port` on, until `close`."""

    def __init__(self, registry: CollectorRegistry, *, address: str, port: int) -> None:
        """
        Raises:
            EnvironmentFault: the address is not this host's, or no port from `port` to `port` + 63 is free.
        """
        self.port, self._server = _first_free(registry, address, port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _first_free(registry: CollectorRegistry, address: str, port: int) -> tuple[int, WSGIServer]:
    for candidate in range(port, port + TRIES):
        try:
            server, _ = start_http_server(candidate, addr=address, registry=registry)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise EnvironmentFault(
                    f"metrics.address = {address}: {error.strerror or error}", remedy="set metrics.address"
                ) from None
        else:
            return candidate, server
    raise EnvironmentFault(
        f"metrics.port = {port}: ports {port} to {port + TRIES - 1} are all taken", remedy="set metrics.port"
    )
