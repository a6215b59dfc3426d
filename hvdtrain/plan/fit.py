"""What a cluster's own sums take, from the file that `hvdtrain bench allreduce` writes: a hop, a byte, their jitter."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvdtrain.errors import ConfigError

KIND = "allreduce-fit"
AGAIN = "hvdtrain bench allreduce"
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """t = 2 (k - 1) (alpha + size / k / bandwidth), of a ring."""

    workers: int  # the most that were measured
    alpha_seconds: float
    bytes_per_second: float
    alpha_error: float  # standard errors
    bytes_per_second_error: float
    jitter: float  # standard deviation of a sum's time, as a fraction of it
    residual: float  # typical relative distance of a measured sum from the line
    sums: int
    hardware: str
    date: str

    def as_dict(self) -> dict[str, Any]:
        return {"kind": KIND, **asdict(self)}


def read(file: Path) -> Fit:
    """Of what the bench measured, or of what `hvdtrain plan --fit FILE --json` made of that.

    Raises:
        ConfigError: it is neither, or does not tell a hop from a byte.
    """
    try:
        content = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--fit {file}: {error.strerror}", remedy=AGAIN) from error
    except ValueError as error:
        raise ConfigError(f"--fit {file}: not JSON ({error})", remedy=AGAIN) from error
    kind = content.get("kind") if isinstance(content, dict) else type(content).__name__
    try:
        if kind == KIND:
            return Fit(**{key: value for key, value in content.items() if key != "kind"})
        if kind == "allreduce":
            return _fit(content, file)
        if isinstance(content, dict) and "fit" in content:
            return Fit(**{key: value for key, value in content["fit"].items() if key != "kind"})
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--fit {file}: {type(error).__name__} {error}; wanted rows of workers, bytes and seconds"
        ) from error
    raise ConfigError(f"--fit {file}: it is {kind!r}, wanted a file of kind 'allreduce'", remedy=AGAIN)


def _fit(content: Mapping[str, Any], file: Path) -> Fit:
    rows = list(_rows(content))
    if len({size for _, size, _ in rows}) < 2:
        raise ConfigError(f"--fit {file}: sums of two sizes and two workers are the least that tells a hop from a byte")
    hops = np.array([2.0 * (k - 1) for k, _, _ in rows])
    share = np.array([2.0 * (k - 1) / k * size for k, size, _ in rows])
    taken = np.array([statistics.median(seconds) for _, _, seconds in rows])
    (alpha, beta), errors, residual = _line(np.stack([hops, share], axis=1), taken)
    spreads = [statistics.stdev(each) / statistics.fmean(each) for _, _, each in rows if len(each) > 2]
    hardware = content.get("hardware", "")
    return Fit(
        workers=max(k for k, _, _ in rows),
        alpha_seconds=float(alpha),
        bytes_per_second=float(1 / beta),
        alpha_error=float(errors[0]),
        bytes_per_second_error=float(errors[1] / beta**2),
        jitter=statistics.median(spreads) if spreads else 0.0,
        residual=residual,
        sums=sum(len(seconds) for _, _, seconds in rows),
        hardware=hardware if isinstance(hardware, str) else ", ".join(str(value) for value in hardware.values()),
        date=str(content.get("date", "")),
    )


def _rows(content: Mapping[str, Any]) -> Iterator[tuple[int, float, list[float]]]:
    for row in content["rows"]:
        workers = int(row.get("workers", content.get("workers", 1)))
        seconds = [float(each) for each in row["seconds"] if math.isfinite(float(each)) and float(each) > 0]
        if workers > 1 and seconds:
            yield workers, float(row["bytes"]), seconds


def _line(terms: Numbers, taken: Numbers) -> tuple[Numbers, Numbers, float]:
    """Least squares of relative errors, of which large ones pull at little; neither coefficient is below 0.

    Returns:
        (2,) coefficients, (2,) their standard errors, and the typical relative error.
    """
    scaled, wanted = terms / taken[:, None], np.ones(len(taken))
    weights = np.ones(len(taken))
    found: Numbers = np.zeros(2)
    scale = 0.0
    for _ in range(30):
        root = np.sqrt(weights)
        free: Numbers = np.linalg.lstsq(root[:, None] * scaled, root * wanted, rcond=None)[0].astype(np.float64)
        found = _positive(scaled, wanted, weights, free)
        errors = scaled @ found - wanted
        scale = 1.4826 * float(np.median(np.abs(errors)))
        weights = np.minimum(1, 1.5 * max(scale, 1e-9) / np.maximum(np.abs(errors), 1e-12))
    inverse = np.linalg.pinv(scaled.T @ (weights[:, None] * scaled))
    return found, scale * np.sqrt(np.diag(inverse)), scale


def _positive(scaled: Numbers, wanted: Numbers, weights: Numbers, found: Numbers) -> Numbers:
    """Where a coefficient came out below 0, it is as good as 0 and the other one is fitted alone."""
    if (found > 0).all():
        return found
    keep = int(np.argmax(found))
    column = scaled[:, keep]
    alone = np.full(2, 1e-12)
    alone[keep] = float((weights * column * wanted).sum() / (weights * column**2).sum())
    return alone
