"""What sums take here, from the file that `hvdtrain bench allreduce` writes: a byte, what is fixed, their jitter."""

import json
import math
import reprlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from hvdtrain.errors import ConfigError

KIND = "allreduce-fit"
AGAIN = "hvdtrain bench allreduce --json FILE"
Numbers = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0, lt=1e15, strict=True)]
NotNegative = Annotated[float, Field(ge=0, lt=1e15, strict=True)]
Workers = Annotated[int, Field(ge=1, strict=True)]
Between = Literal["within a node", "nodes"]
T = TypeVar("T")


@dataclass(frozen=True)
class Fit:
    """t = fixed + 2 (k - 1) (hop + size / k / bandwidth), of a ring.

    Sums of one number of workers do not tell a hop from what is fixed: Horovod's cycle, and agreeing on the sum.
    """

    workers: Annotated[int, Field(ge=2, strict=True)]  # the most that were measured
    fixed_seconds: NotNegative  # of a sum, whatever its size; with all its hops where these are not known
    hop_seconds: NotNegative | None  # None: not told from what is fixed
    bytes_per_second: Positive  # of each worker
    fixed_error: NotNegative  # standard errors
    hop_error: NotNegative
    bytes_per_second_error: NotNegative
    jitter: NotNegative  # standard deviation of a sum's time, as a fraction of it
    residual: NotNegative  # typical relative distance of a measured sum from the line
    sums: Annotated[int, Field(ge=1, strict=True)]
    hardware: str
    date: str
    between: Between = "within a node"
    """What bytes_per_second is of: workers of one node, or nodes, of which the network is the slowest link."""

    def as_dict(self) -> dict[str, Any]:
        return {"kind": KIND, **asdict(self)}

    def fixed_besides(self, hop_seconds: float) -> float:
        """Of what is fixed, the seconds that are no hops, these being as they were measured, or else as assumed."""
        if self.hop_seconds is not None:
            return self.fixed_seconds
        return max(0.0, self.fixed_seconds - 2 * (self.workers - 1) * hop_seconds)


@dataclass(frozen=True)
class _Row:
    bytes: Positive
    seconds: list[Annotated[float, Field(strict=True)]]
    workers: Workers | None = None


@dataclass(frozen=True)
class _Bench:
    """Of what the bench writes."""

    rows: list[_Row]
    workers: Workers = 1  # of rows that do not say it
    hardware: str | dict[str, Any] = ""
    date: str = ""
    between: Between = "within a node"


def read(file: Path) -> Fit:
    """Of what the bench measured, or of what `hvdtrain plan --fit FILE --json` made of that.

    Raises:
        ConfigError: it is neither, or does not tell a byte from what is fixed.
    """
    try:
        content = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--fit {file}: {error.strerror}", remedy=AGAIN) from error
    except ValueError as error:
        raise ConfigError(f"--fit {file}: not JSON ({error})", remedy=AGAIN) from error
    kind = content.get("kind") if isinstance(content, dict) else type(content).__name__
    if kind == KIND:
        return _checked(Fit, content, f"--fit {file}")
    if kind == "allreduce":
        return _fit(_checked(_Bench, content, f"--fit {file}"), file)
    if isinstance(content, dict) and "fit" in content:
        return _checked(Fit, content["fit"], f"--fit {file}: fit")
    raise ConfigError(f"--fit {file}: it is {kind!r}, wanted a file of kind 'allreduce'", remedy=AGAIN)


def _fit(content: _Bench, file: Path) -> Fit:
    rows = list(_rows(content))
    if len({size for _, size, _ in rows}) < 2:
        raise ConfigError(
            f"--fit {file}: sums of two sizes and two workers are the least that tells a byte from what is fixed",
            remedy=AGAIN,
        )
    terms = {
        "fixed": np.ones(len(rows)),
        "byte": np.array([2 * (k - 1) / k * size for k, size, _ in rows]),
        "hop": np.array([2.0 * (k - 1) for k, _, _ in rows]),
    }
    if not _independent(list(terms.values())):  # as many hops in each sum
        del terms["hop"]
    taken = np.array([statistics.median(seconds) for _, _, seconds in rows])
    (fixed, byte, *hop), errors, residual = _line(np.stack(list(terms.values()), axis=1), taken)
    if not byte:
        raise ConfigError(f"--fit {file}: larger sums take no longer; wanted sizes of which they do", remedy=AGAIN)
    spreads = [statistics.stdev(each) / statistics.fmean(each) for _, _, each in rows if len(each) > 2]
    about = content.hardware
    return Fit(
        workers=max(k for k, _, _ in rows),
        fixed_seconds=float(fixed),
        hop_seconds=float(hop[0]) if hop else None,
        bytes_per_second=float(1 / byte),
        fixed_error=float(errors[0]),
        hop_error=float(errors[2]) if hop else 0.0,
        bytes_per_second_error=float(errors[1] / byte**2),
        jitter=statistics.median(spreads) if spreads else 0.0,
        residual=residual,
        sums=sum(len(seconds) for _, _, seconds in rows),
        hardware=about if isinstance(about, str) else ", ".join(str(value) for value in about.values()),
        date=content.date,
        between=content.between,
    )


def _rows(content: _Bench) -> Iterator[tuple[int, float, list[float]]]:
    for row in content.rows:
        workers = row.workers or content.workers
        seconds = [each for each in row.seconds if math.isfinite(each) and each > 0]
        if workers > 1 and seconds:
            yield workers, row.bytes, seconds


def _independent(columns: Sequence[Numbers]) -> bool:
    scaled = np.stack([column / np.linalg.norm(column) for column in columns], axis=1)
    return int(np.linalg.matrix_rank(scaled, tol=1e-6)) == len(columns)


def _line(terms: Numbers, taken: Numbers) -> tuple[Numbers, Numbers, float]:
    """Least squares of relative errors, of which large ones pull at little; no coefficient is below 0.

    Returns:
        (terms,) coefficients, (terms,) their standard errors, and the typical relative error.
    """
    scaled, wanted = terms / taken[:, None], np.ones(len(taken))
    weights = np.ones(len(taken))
    found: Numbers = np.zeros(terms.shape[1])
    scale = 0.0
    for _ in range(30):
        found = _positive(scaled, wanted, weights)
        errors = scaled @ found - wanted
        scale = 1.4826 * float(np.median(np.abs(errors)))
        weights = np.minimum(1, 1.5 * max(scale, 1e-9) / np.maximum(np.abs(errors), 1e-12))
    inverse = np.linalg.pinv(scaled.T @ (weights[:, None] * scaled))
    return found, scale * np.sqrt(np.diag(inverse)), scale


def _positive(scaled: Numbers, wanted: Numbers, weights: Numbers) -> Numbers:
    """While a coefficient comes out below 0, the lowest is as good as 0 and the others are fitted without it."""
    root = np.sqrt(weights)
    kept = list(range(scaled.shape[1]))
    found: Numbers = np.zeros(scaled.shape[1])
    while kept:
        some = np.linalg.lstsq(root[:, None] * scaled[:, kept], root * wanted, rcond=None)[0].astype(np.float64)
        if (some >= 0).all():
            found[kept] = some
            break
        del kept[int(np.argmin(some))]
    return found


def _checked(kind: type[T], content: Any, where: str) -> T:
    """
    Raises:
        ConfigError: it is not as `kind` has it.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        wanted = "wanted an object" if first["type"] == "dataclass_type" else first["msg"]
        raise ConfigError(
            f"{where}: {place + ': ' if place else ''}{wanted}, got {reprlib.repr(first['input'])}", remedy=AGAIN
        ) from error
