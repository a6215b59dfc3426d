"""Bytes of chance to a real exporter: whatever they are, the next scrape is answered."""

import random
import socket
import threading

import pytest

from tests.metrics.serving import HOST, exporter, get, tls, trusting

from .tally import Times, Trials

PIECES = [
    *(
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"\0",
        b"/metrics",
        b"/healthz",
        b"/",
        b"?name[]=a",
        b"?%ff",
        b"/../..",
        b"http://a/",
        b"*",
    ),
    *(
        b" HTTP/1.0",
        b" HTTP/1.1",
        b" HTTP/9.9",
        b" HTTP/1.",
        b" HTTP/0.9",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b":",
        b" ",
        b"\t",
    ),
    *(
        b"Host: a",
        b"Content-Length: -1",
        b"Content-Length: 99999999999",
        b"Accept: " + b"a/b;q=1," * 500,
        b"Expect: 100-continue",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"Accept-Encoding: gzip",
        b"Accept: application/openmetrics-text; version=x",
        b"X" * 70_000,
    ),
    *(b"Connection: keep-alive", b"X: 1\r\n" * 200, b"\xff" * 20, b"\x16\x03\x01\x02\x00\x01", b"%00", b"\xc3\x28"),
]


def request(draw: random.Random) -> bytes:
    whole = b"".join(draw.choice(PIECES) for _ in range(draw.randrange(1, 12)))
    if draw.random() < 0.5:
        whole = b"GET /metrics HTTP/1.1\r\n" + whole
    if draw.random() < 0.3:
        whole += draw.randbytes(draw.randrange(200))
    return whole + draw.choice([b"", b"\r\n\r\n"])


def answer(port: int, secure: bool, content: bytes, draw: random.Random) -> bytes:
    """What comes back, until the other side has had enough or we have gone; a silence of 30 s fails."""
    received = b""
    client = socket.create_connection((HOST, port), timeout=30)
    try:
        if secure and draw.random() < 0.7:
            client = trusting().wrap_socket(client, server_hostname=HOST)
        client.sendall(content)
        if draw.random() < 0.8:  # or it goes without a word
            socket.socket.shutdown(client, socket.SHUT_WR)
            while more := client.recv(1 << 16):
                received += more
    except TimeoutError:
        raise
    except OSError:  # it has closed the connection, as it may
        pass
    finally:
        client.close()
    return received


# Of a client that is gone already ssl leaves the socket to the garbage collector, with a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_requests_at_random(secure: bool, trials: Trials, times: Times, capfd: pytest.CaptureFixture[str]) -> None:
    settings = {"tls": tls()} if secure else {}
    context = trusting() if secure else None
    before = threading.active_count()
    with (
        exporter(deadline_seconds=5, **settings) as serving,
        trials(f"{'https' if secure else 'http'} requests at random, then a scrape") as tally,
    ):
        for seed in range(times(400, 2000)):
            draw = random.Random(seed)
            with tally.one(f"seed {seed}"):
                received = answer(serving.port, secure, request(draw), draw)
                assert b"Traceback" not in received
                assert b"site-packages" not in received
                status, _, text = get(serving.port, "/metrics", context)
                assert status == 200
                assert "hvdtrain_steps_total 0.0" in text
                assert threading.active_count() < before + 20
    assert capfd.readouterr().err == ""
