"""How a worker and rank 0 tell each other that they live: lines of JSON over TCP, of those who know the job's token.

Nobody's line is trusted before they have proved that they know it, and none is more than JSON.
"""

import hmac
import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 8192  # of a line
CONNECT_SECONDS = 2.0  # for each address; a host that does not answer in this time is asked at its next address
GREET_SECONDS = 10.0  # rank 0 greets a thousand at once


@dataclass(frozen=True)
class Offer:
    """Where rank 0 listens, for those to whom it handed this."""

    token: str
    addresses: list[str]
    port: int

    def proof(self, who: str) -> str:
        """That `who` knows the token, without telling it to whoever listens."""
        return proof(self.token, who)


class Garbage(Exception):
    """What came is no line of ours."""


class Channel:
    """Lines to and from one other process; no call waits for it. Those that read nothing are told nothing new."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._came, self._going = b"", b""

    def send(self, line: bytes) -> None:
        """
        Raises:
            OSError: the connection has ended.
        """
        if len(self._going) < MOST_BYTES:
            self._going += line
        self.flush()

    def flush(self) -> None:
        try:  # not suppress, which takes as long as the rest of it: rank 0 is here a thousand times a second
            while self._going:
                self._going = self._going[self.socket.send(self._going) :]
        except BlockingIOError:
            pass

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that have come whole; None when the other has closed.

        Raises:
            OSError: the connection has ended.
            Garbage: what came is no message.
        """
        try:
            came = self.socket.recv(8 * MOST_BYTES)
        except BlockingIOError:
            return []
        if not came:
            return None
        *lines, self._came = (self._came + came).split(b"\n")
        if len(self._came) > MOST_BYTES:
            raise Garbage
        return [_message(line) for line in lines]

    def close(self) -> None:
        self.socket.close()


def line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def proof(token: str, who: str) -> str:
    return hmac.new(token.encode(), who.encode(), "sha256").hexdigest()


def matches(given: Any, expected: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def addresses() -> list[str]:
    """Under which other hosts may reach this one; those of containers' bridges last, for every host has the same."""
    import psutil

    found = []
    for name, those in psutil.net_if_addrs().items():
        inside = name.startswith(("docker", "br-", "veth", "virbr", "cni", "lo"))
        found += [
            (inside, family, address.address)
            for address in those
            for family in (socket.AF_INET, socket.AF_INET6)
            if address.family == family and not address.address.startswith(("127.", "::1", "fe80:"))
        ]
    return [address for _, _, address in sorted(found)]


class Link:
    """A worker's end."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.open = True
        """Whether the connection is."""

    def send(self, **message: Any) -> None:
        if self.open:
            try:
                self._channel.send(line(message))
            except OSError:  # what rank 0 said before is still to be read
                return

    def look(self) -> list[dict[str, Any]]:
        """What rank 0 has said."""
        if not self.open:
            return []
        try:
            messages = self._channel.receive()
        except (OSError, Garbage):
            messages = None
        if messages is None:
            self.close()
        return messages or []

    def finish(self, seconds: float) -> None:
        """Say no more, and close when rank 0 has; to close before would destroy what is still on its way to it."""
        deadline = time.monotonic() + seconds
        with suppress(OSError):
            self._channel.socket.shutdown(socket.SHUT_WR)
            self._channel.socket.settimeout(seconds)
            while time.monotonic() < deadline and self._channel.socket.recv(8 * MOST_BYTES):
                pass
        self.close()

    def close(self) -> None:
        self.open = False
        self._channel.close()


def connect(offer: Offer, rank: int) -> Link | None:
    """To the first address at which somebody proves to be this job's rank 0; None where there is none."""
    for address in offer.addresses:
        channel = None
        try:
            channel = Channel(socket.create_connection((address, offer.port), CONNECT_SECONDS))
            channel.send(line({"rank": rank, "proof": offer.proof(f"rank {rank}")}))
            if matches(_first(channel).get("proof"), offer.proof(f"rank 0 to rank {rank}")):
                return Link(channel)
        except (OSError, Garbage):
            pass
        if channel:
            channel.close()
    return None


def _first(channel: Channel) -> dict[str, Any]:
    deadline = time.monotonic() + GREET_SECONDS
    while time.monotonic() < deadline:
        messages = channel.receive()
        if messages is None:
            break
        if messages:
            return messages[0]
        time.sleep(0.01)
    raise Garbage


def _message(text: bytes) -> dict[str, Any]:
    try:
        message = json.loads(text) if len(text) <= MOST_BYTES else None
    except (ValueError, RecursionError) as error:
        raise Garbage from error
    if not isinstance(message, dict):
        raise Garbage
    return message
