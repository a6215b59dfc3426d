"""Who may read the metrics, where not everybody may."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hvdtrain.errors import EnvironmentFault


@dataclass(frozen=True)
class Tls:
    """PEM files. An empty `key` is in `certificate`; with a `client_ca` only its clients are let in."""

    certificate: str
    key: str = ""
    client_ca: str = ""

    @classmethod
    def of(cls, certificate: str, key: str, client_ca: str) -> "Tls | None":
        """None without a certificate: plain HTTP."""
        return cls(certificate, key, client_ca) if certificate else None

    def context(self) -> ssl.SSLContext:
        """
        Raises:
            EnvironmentFault: a file cannot be read, or is not what it should be.
        """
        context, key = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.key or self.certificate
        for setting, path in (("tls_certificate", self.certificate), ("tls_key", key)):
            with _blaming(setting, path):
                Path(path).read_bytes()
        with _blaming("tls_certificate", f"{self.certificate} with the key in {key}"):
            context.load_cert_chain(self.certificate, key, password="")  # or it would ask on a terminal for one
        if self.client_ca:
            with _blaming("client_ca", self.client_ca):
                context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@contextmanager
def _blaming(setting: str, value: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(
            f"metrics.{setting} = {value}: {error.strerror or error}", remedy=f"set metrics.{setting}"
        ) from None
