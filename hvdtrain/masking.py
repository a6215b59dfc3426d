"""Secrets in what is written down: *** instead of the value of API_TOKEN and its kin, and of user:password in a URL.

A name tells a secret by one of its words, which stand between _ . - or in camelCase: AWS_SECRET_ACCESS_KEY, hf-token,
apiKey; not HOROVOD_MONKEY. A path under such a name, as that of metrics.tls_key, is masked too: config.yaml has it.
A secret under a name that does not say so is not found.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"
SECRET = frozenset(
    {
        *("token", "tokens", "key", "keys", "apikey", "secret", "secrets", "jwt", "auth", "authorization"),
        *("password", "passwords", "passwd", "passphrase", "credential", "credentials"),
    }
)
UNNAMED = "precondition_transports"  # the key by which the processes of one of Open MPI's jobs know each other

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Each begins where nothing before could belong to it, so that a long text is looked through once.
_IN_URL = re.compile(r"(?<=://)[^/?#\s]*@")
_ASSIGNED = re.compile(r"""(?<![\w.-])([\w.-]+)=("[^"]*"|'[^']*'|[^\s,;&#"']+)""")


def is_secret(name: str) -> bool:
    """
    >>> [is_secret(name) for name in ("SLURM_JWT", "hf-token", "apiKey", "SLURM_JOB_ID", "HOROVOD_MONKEY", "keyed")]
    [True, True, True, False, False, False]
    """
    return any(word.lower() in SECRET for word in _WORD.findall(name)) or name.endswith(UNNAMED)


def masked(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables. Some hold others: SLURM_EXPORT_ENV, OMPI_MCA_mca_base_env_list.

    >>> masked({"SLURM_JWT": "a", "SLURM_EXPORT_ENV": "ALL,API_TOKEN=a", "HTTPS_PROXY": "http://me:pw@host:1"})
    {'SLURM_JWT': '***', 'SLURM_EXPORT_ENV': 'ALL,API_TOKEN=***', 'HTTPS_PROXY': 'http://***@host:1'}
    """
    return {name: MASK if is_secret(name) else _text(value) for name, value in variables.items()}


def masked_command(arguments: Sequence[str]) -> list[str]:
    """A command line.

    >>> masked_command(["train", "--x.token=a", "--token", "a", "API_KEY=a b", "--data.dir", "d"])
    ['train', '--x.token=***', '--token', '***', 'API_KEY=***', '--data.dir', 'd']
    """
    shown: list[str] = []
    value_of_secret = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if value_of_secret and not argument.startswith("--"):
            shown.append(MASK)
            value_of_secret = False
            continue
        assigned = bool(equals) and not re.search(r"\s|://", name)
        shown.append(f"{name}={MASK}" if assigned and is_secret(name) else _text(argument))
        value_of_secret = argument.startswith("-") and not equals and is_secret(name)
    return shown


def masked_fields(value: Any) -> Any:
    """Fields of an event, however deep: what stands under a secret name, and URLs in any text.

    >>> masked_fields({"token": "a", "origin": {"url": "see s3://me:pw@store/x"}, "loss": 0.5})
    {'token': '***', 'origin': {'url': 'see s3://***@store/x'}, 'loss': 0.5}
    """
    if isinstance(value, Mapping):
        return {
            key: MASK if isinstance(key, str) and is_secret(key) and inner is not None else masked_fields(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked_fields(inner) for inner in value]
    return _url(value) if isinstance(value, str) else value


def _url(text: str) -> str:
    return _IN_URL.sub(f"{MASK}@", text) if "://" in text else text


def _text(text: str) -> str:
    """URLs, and NAME=value wherever it stands."""
    return _ASSIGNED.sub(lambda found: f"{found[1]}={MASK}" if is_secret(found[1]) else found[0], _url(text))
