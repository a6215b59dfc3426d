"""An HTTP server that no client can hold up, nor make it hold up the process that it is in.

Each connection has a thread of its own, from its TLS handshake on, and is over after a deadline whatever it does: be
silent, or slow, or read nothing. Of too many the oldest goes, so that a newcomer is always let in.
"""

import io
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from hvdtrain.log import logger

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

MOST_CONNECTIONS = 64


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = MOST_CONNECTIONS

    def __init__(
        self,
        application: "WSGIApplication",
        *,
        address: str,
        port: int,
        context: ssl.SSLContext | None,
        deadline_seconds: float,
    ) -> None:
        """Bound and listening, but serving nobody before `start`.

        Args:
            context: for TLS; None: plain HTTP.
            deadline_seconds: how long a connection may last.

        Raises:
            OSError: `address` is not one of this host, or `port` is taken.
        """
        self.address_family, *_, name = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        self._context, self._deadline_seconds = context, deadline_seconds
        self._lock = threading.Lock()
        self._begun: dict[socket.socket, float] = {}  # when, the oldest first
        super().__init__((str(name[0]), port), _Request)
        self.set_app(application)
        self._thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self._end_before(float("inf"))
        self.server_close()

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would ask a name server, which may not answer, for this host's name
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, client = super().get_request()
        if self._context:  # the handshake is left to the connection's thread: this one must accept others
            connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, client

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._begun) >= MOST_CONNECTIONS:
                oldest = next(iter(self._begun))
                del self._begun[oldest]
                _end(oldest)
            self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if isinstance(request, ssl.SSLSocket):
            request.do_handshake()
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second, and after each connection."""
        self._end_before(time.monotonic() - self._deadline_seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = repr(sys.exc_info()[1])  # as text: who keeps the record would keep the connection with it
        logger.debug("metrics: the connection of %s failed: %s", client_address, error)

    def _end_before(self, moment: float) -> None:
        with self._lock:
            for connection, begun in self._begun.items():
                if begun < moment:
                    _end(connection)


def _end(connection: socket.socket) -> None:
    """Wake whoever waits for it. The plain socket's shutdown, for that of an SSLSocket would turn what its thread still
    sends into plain text."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Request(WSGIRequestHandler):
    wbufsize = -1  # the answer goes out at once, not header by header

    def get_stderr(self) -> io.StringIO:
        return io.StringIO()  # what a client does is no news

    def log_message(self, format: str, *args: Any) -> None:
        pass
