"""Who may read the metrics over TLS, and what a wrong file says. The certificates are made by certificates/make.sh."""

import socket
import ssl
from pathlib import Path

import pytest

from hvdtrain.errors import EnvironmentFault
from hvdtrain.metrics.tls import Tls
from tests.metrics.serving import HOST, exporter, get, pem, tls, trusting


def test_a_scrape_over_tls() -> None:
    with exporter(tls=tls()) as serving:
        assert serving.scheme == "https"
        status, _, text = get(serving.port, context=trusting())
        assert status == 200
        assert text.endswith("\n")
        assert "hvdtrain_steps_total 0.0" in text
        assert get(serving.port, "/healthz", context=trusting())[0] == 200


def test_a_certificate_may_have_its_key_in_the_same_file(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(pem("server.pem")).read_text() + Path(pem("server.key")).read_text())
    with exporter(tls=Tls(str(both))) as serving:
        assert get(serving.port, context=trusting())[0] == 200


def test_whoever_does_not_speak_tls_is_told_nothing() -> None:
    with exporter(tls=tls()) as serving, socket.create_connection((HOST, serving.port), timeout=60) as plain:
        plain.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: plain.recv(4096), b""))
        assert b"hvdtrain" not in answer
        assert get(serving.port, context=trusting())[0] == 200


def test_a_scraper_that_knows_another_authority_refuses_the_certificate() -> None:
    with exporter(tls=tls()) as serving, pytest.raises(ssl.SSLCertVerificationError):
        get(serving.port, context=ssl.create_default_context(cafile=pem("stranger.pem")))


def test_with_an_authority_for_clients_only_they_may_scrape() -> None:
    with exporter(tls=tls(client_ca=pem("authority.pem"))) as serving:
        assert get(serving.port, context=trusting("client"))[0] == 200
        for context in (trusting(), trusting("stranger")):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                get(serving.port, context=context)
        assert get(serving.port, context=trusting("client"))[0] == 200


def test_without_a_certificate_there_is_no_tls() -> None:
    assert Tls.of("", "", "") is None
    assert Tls.of("c", "k", "a") == Tls("c", "k", "a")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"certificate": "none.pem"}, "metrics.tls_certificate = none.pem: No such file or directory"),
        ({"key": "none.key"}, "metrics.tls_key = none.key: No such file or directory"),
        ({"client_ca": "none.pem"}, "metrics.client_ca = none.pem: No such file or directory"),
        ({"certificate": "."}, r"metrics.tls_certificate = \.: Is a directory"),
        ({"key": pem("client.key")}, "metrics.tls_certificate = .*server.pem with the key in .*client.key: .*MISMATCH"),
        ({"key": ""}, "metrics.tls_certificate = .*server.pem with the key in .*server.pem: "),
        ({"key": pem("locked.key")}, "metrics.tls_certificate = .* with the key in .*locked.key: "),
        ({"certificate": __file__}, "metrics.tls_certificate = .*test_tls.py with the key in .*server.key: "),
        ({"client_ca": __file__}, "metrics.client_ca = .*test_tls.py: "),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(files: dict[str, str], message: str) -> None:
    with pytest.raises(EnvironmentFault, match=f"^{message}") as refused, exporter(tls=tls(**files)):
        pass
    assert "\n" not in str(refused.value)
    assert "→ set metrics." in str(refused.value)
