"""Horovod, started again, asks for its place what it takes for horovodrun's driver: a server of this worker's.

It repeats the answer that the workers have agreed on, and hands on the rest of what Gloo has to tell.
"""

import http.client
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from hvdtrain.distributed.rendezvous import ADDRESS, PORT, QUESTION, Driver


class Answering:
    """A server on this host alone that Horovod takes for the driver."""

    def __init__(self, driver: Driver) -> None:
        self.place = ""
        answering = self

        class Repeater(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith(QUESTION):
                    self._answer(http.HTTPStatus.OK, answering.place.encode())
                else:
                    self._hand_on()

            def do_PUT(self) -> None:
                self._hand_on()

            def do_DELETE(self) -> None:
                self._hand_on()

            def _hand_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                connection = http.client.HTTPConnection(driver.address, driver.port)
                try:
                    connection.request(self.command, self.path, body)
                    answer = connection.getresponse()
                    told = answer.status, answer.read()
                except (OSError, http.client.HTTPException):  # it has gone; who asks will say so
                    told = http.HTTPStatus.BAD_GATEWAY, b""
                self._answer(*told)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *_: object) -> None:
                """Nobody asked."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Repeater)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="answering Gloo", daemon=True).start()
        os.environ |= {ADDRESS: "127.0.0.1", PORT: str(self._server.server_port)}
