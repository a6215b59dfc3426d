"""Whoever is at the other end of a connection finds out that it is not used any more."""

import socket

from hvdtrain.distributed import connections


def test_only_those_that_are_named_are_hung_up() -> None:
    before = connections.mine()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as end_of_one,
    ):
        mine = connections.mine()
        assert len(mine - before) == 3
        with socket.create_connection(server.getsockname()) as other, server.accept()[0] as end_of_other:
            connections.hang_up(mine - before)
            end_of_one.settimeout(5)
            assert end_of_one.recv(1) == b""
            other.send(b"x")
            assert end_of_other.recv(1) == b"x"
            assert one.fileno() >= 0
    assert connections.mine() == before
