"""Numbers as people read them: rounded to what they are worth, each with its unit."""

import math
from datetime import datetime, timezone

MIB = 2**20
UNKNOWN = "—"


def percent(ratio: float) -> str:
    """
    >>> percent(0.18), percent(0.0184), percent(0.00021), percent(-0.012), percent(float("nan"))
    ('18 %', '1.8 %', '0.0 %', '-1.2 %', '—')
    """
    if not math.isfinite(ratio):
        return UNKNOWN
    value = 100 * ratio
    return f"{_signed(value, 0 if abs(value) >= 9.95 else 1)} %"


def tenths(ratio: float) -> str:
    """A ratio to a tenth of a per cent, without the sign of it: what is compared digit by digit.

    >>> tenths(0.7841), tenths(1.0), tenths(-0.0004), tenths(-0.013)
    ('78.4', '100.0', '0.0', '-1.3')
    """
    return _signed(100 * ratio, 1) if math.isfinite(ratio) else UNKNOWN


def milliseconds(seconds: float) -> str:
    """Three digits, for what is a part of a step.

    >>> milliseconds(0.0241), milliseconds(0.133), milliseconds(0.00042), milliseconds(1.5), milliseconds(0.0)
    ('24.1 ms', '133 ms', '0.42 ms', '1,500 ms', '0.00 ms')
    """
    if not math.isfinite(seconds):
        return UNKNOWN
    value = 1000 * seconds
    return f"{_signed(value, 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2)} ms"


def number(value: float) -> str:
    """
    >>> number(31412.3), number(483.6), number(9.87), number(float("nan"))
    ('31,412', '484', '9.9', '—')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:,.1f}"


def mib(size_bytes: float) -> str:
    """
    >>> mib(98 * 2**20), mib(25 * 2**20), mib(312_256)
    ('98 MiB', '25 MiB', '0.3 MiB')
    """
    value = size_bytes / MIB
    return f"{value:,.0f} MiB" if value >= 9.95 else f"{value:.1f} MiB"


def bandwidth(bytes_per_second: float) -> str:
    """
    >>> bandwidth(3.14e9), bandwidth(2.1e7)
    ('3.1 GB/s', '21 MB/s')
    """
    if bytes_per_second >= 1e9:
        return f"{bytes_per_second / 1e9:.1f} GB/s"
    return f"{bytes_per_second / 1e6:,.0f} MB/s"


def moment(seconds: float) -> str:
    """
    >>> moment(1_795_245_120), moment(1e300), moment(float("nan"))
    ('2026-11-21 07:12 UTC', '—', '—')
    """
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return UNKNOWN


def plural(count: int, one: str, more: str = "") -> str:
    """
    >>> plural(1, "worker"), plural(8192, "step"), plural(2, "batch", "batches")
    ('1 worker', '8,192 steps', '2 batches')
    """
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _signed(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text if float(text.replace(",", "")) else text.lstrip("-")  # no -0.0
