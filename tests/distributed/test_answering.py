"""What Horovod asks horovodrun's driver for, told it again, and what Gloo has to tell handed on."""

import http.client
import os

import pytest

from hvdtrain.distributed.answering import Answering
from hvdtrain.distributed.rendezvous import PORT

from .driver import Start


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_horovod_is_told_the_place_again_and_gloo_gets_through(start: Start) -> None:
    cluster = start(a=1)
    answering = Answering(cluster.driver("a:0"))
    answering.place = "1,2,0,1,1,2"
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ[PORT]))

    def ask(method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()

    assert ask("GET", "/rank_and_size/a:0") == (200, b"1,2,0,1,1,2")
    assert ask("GET", "/global/0")[0] == 404
    assert ask("PUT", "/global/0", b"\0address") == (200, b"")
    assert cluster.kept("global", "0") == b"\0address"
    assert ask("GET", "/global/0") == (200, b"\0address")


def test_gloo_is_told_that_the_driver_has_gone_and_nobody_sees_a_traceback(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster = start(a=1)
    Answering(cluster.driver("a:0"))
    cluster.elastic.stop()
    cluster.server._httpd.socket.close()
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ[PORT]))
    for method in ("GET", "PUT", "DELETE"):
        connection.request(method, "/global/0", b"address" if method == "PUT" else None)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (502, b"")
    assert "Traceback" not in capfd.readouterr().err
