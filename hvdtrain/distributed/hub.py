"""Rank 0's end of the connections by which workers tell that they live: one thread serves a thousand of them."""

import secrets
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hvdtrain.distributed.limits import allow_open_files, needed
from hvdtrain.distributed.wire import Channel, Garbage, Offer, addresses, line, matches, proof

STRANGER_SECONDS = 5.0  # within which a newcomer must have proved to be of this job
MOST_STRANGERS = 64  # at a time, beside the workers that are still expected; of too many the oldest goes

LOST = "lost"
"""The name of what `Hub.look` says of a connection that has ended."""


class Hub:
    def __init__(self, size: int, *, one_host: bool) -> None:
        """Listening, but serving nobody before `look`.

        Args:
            size: workers of the job.
            one_host: all of them are on this one, and nobody else need reach it.

        Raises:
            OSError: this host has no address to listen on.
        """
        self.open_files = allow_open_files(needed(size))
        self._listener = _listen(one_host, size)
        self._listener.setblocking(False)
        self._size, self._token = size, secrets.token_hex(16)
        self._strangers: dict[Channel, float] = {}  # since when, the oldest first
        self._peers: dict[int, Channel] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.answer: dict[str, Any] = {}
        """What whoever speaks is told."""
        where = ["127.0.0.1"] if one_host else addresses()
        self.offer = Offer(self._token, where, int(self._listener.getsockname()[1]))

    @property
    def connected(self) -> set[int]:
        return set(self._peers)

    def look(self, wait_seconds: float = 0.0) -> list[tuple[int, dict[str, Any]]]:
        """Who has said what, in the order in which it came, after waiting for so long for the first; a connection that
        has ended says {"lost": true}."""
        said: list[tuple[int, dict[str, Any]]] = []
        answer = line(self.answer)
        for key, _ in self._selector.select(wait_seconds):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, Channel):
                self._greet(key.data)
            else:
                peer: tuple[int, Channel] = key.data
                rank, channel = peer
                if self._peers.get(rank) is channel:
                    said += [(rank, message) for message in self._from_peer(rank, channel, answer)]
        self._end_strangers_before(time.monotonic() - STRANGER_SECONDS)
        return said

    def tell(self, **message: Any) -> set[int]:
        """Tell every worker; the ranks of those whose connections took it."""
        told, text = set(), line(message)
        for rank, channel in self._peers.items():
            with suppress(OSError):
                channel.send(text)
                told.add(rank)
        return told

    def drop(self, rank: int) -> None:
        if channel := self._peers.pop(rank, None):
            self._end(channel)

    def finish(self, seconds: float) -> None:
        """Say no more, and close when the others have, or after so long: to close before would destroy what is still on
        its way to them."""
        for channel in self._peers.values():
            with suppress(OSError):
                channel.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + seconds
        while self._peers and (left := deadline - time.monotonic()) > 0:
            self.look(left)
        self.close()

    def close(self) -> None:
        for channel in [*self._strangers, *self._peers.values()]:
            channel.close()
        self._strangers.clear()
        self._peers.clear()
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # nobody waits any more, or no file is free until one of the strangers is gone
            while True:
                connection, _ = self._listener.accept()
                channel = Channel(connection)
                if len(self._strangers) >= MOST_STRANGERS + self._size:
                    self._forget(next(iter(self._strangers)))
                self._strangers[channel] = time.monotonic()
                self._selector.register(channel.socket, selectors.EVENT_READ, channel)

    def _greet(self, channel: Channel) -> None:
        """Hear a newcomer's first line."""
        if channel not in self._strangers:  # sent away since
            return
        try:
            messages = channel.receive()
            if messages == []:
                return
            rank = messages[0].get("rank") if messages else None
            if not isinstance(rank, int) or not 0 < rank < self._size:
                raise Garbage
            if not messages or not matches(messages[0].get("proof"), proof(self._token, f"rank {rank}")):
                raise Garbage
            channel.send(line({"proof": proof(self._token, f"rank 0 to rank {rank}")}))
        except (OSError, Garbage):
            self._forget(channel)
            return
        del self._strangers[channel]
        self.drop(rank)  # it has given up an earlier attempt
        self._peers[rank] = channel
        self._selector.modify(channel.socket, selectors.EVENT_READ, (rank, channel))

    def _from_peer(self, rank: int, channel: Channel, answer: bytes) -> Iterator[dict[str, Any]]:
        try:
            messages = channel.receive()
            if messages:
                with suppress(OSError):  # its goodbye may lie behind what could not be answered
                    channel.send(answer)
                yield from messages
        except (OSError, Garbage):
            messages = None
        if messages is None:
            self.drop(rank)
            yield {LOST: True}

    def _end_strangers_before(self, moment: float) -> None:
        for channel in [channel for channel, since in self._strangers.items() if since < moment]:
            self._forget(channel)

    def _forget(self, channel: Channel) -> None:
        del self._strangers[channel]
        self._end(channel)

    def _end(self, channel: Channel) -> None:
        self._selector.unregister(channel.socket)
        channel.close()


def _listen(one_host: bool, size: int) -> socket.socket:
    if one_host:
        return socket.create_server(("127.0.0.1", 0), backlog=size)
    if socket.has_dualstack_ipv6():
        with suppress(OSError):  # the system knows IPv6, but has it switched off
            return socket.create_server(("", 0), family=socket.AF_INET6, backlog=size, dualstack_ipv6=True)
    return socket.create_server(("", 0), backlog=size)
