"""What Horovod's own timeline says of each bucket: HOROVOD_TIMELINE, written by rank 0 as a Chrome trace.

The file is one JSON array, unterminated while the run goes on, and of any size: it is read piece by piece. Every tensor
is a process of the trace, with these events in the order of time:

    B NEGOTIATE_ALLREDUCE   the first rank is ready
    X 0, X 1, …             that rank is ready
    E                       all are: the last of the X is who was waited for
                            then a queue, behind other buckets
    B ALLREDUCE … E         the ring, and what is inside of it

Where the response cache knows a tensor, which it does from its second sum on, the ranks are not written, and the
negotiation begins when rank 0 is ready: HOROVOD_CACHE_CAPACITY=0 makes Horovod write all, and slower.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hvdtrain.errors import ConfigError

CHUNK = 1 << 20  # characters
BETWEEN = " \t\r\n,[]"
OURS = "allreduce.gradients."
MICRO = 1e-6


@dataclass(frozen=True)
class BucketTime:
    """Mean seconds over its sums."""

    name: str
    sums: int
    negotiation: float
    """From the first rank's being ready to the last one's."""
    queue: float
    """Until its turn comes."""
    ring: float
    longest_ring: float


@dataclass(frozen=True)
class Timeline:
    file: Path
    buckets: tuple[BucketTime, ...]
    """In order of number, where they are ours, then other tensors by time."""
    last: dict[int, int]
    """How often a rank was the last to be ready, by rank."""
    whole: bool
    """False where the file breaks off."""

    @property
    def told(self) -> int:
        """Of how many sums the ranks are known."""
        return sum(self.last.values())

    @property
    def sums(self) -> int:
        return sum(bucket.sums for bucket in self.buckets)


def read(file: Path) -> Timeline:
    """
    Raises:
        ConfigError: there is no such file, or no allreduce in it.
    """
    tensors: dict[int, _Tensor] = {}
    try:
        for event in _events(file):
            _take(event, tensors)
        whole = _closed(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", remedy="HOROVOD_TIMELINE=FILE hvdtrain train …") from None
    found = [tensor for tensor in tensors.values() if tensor.sums]
    ours = [tensor for tensor in found if tensor.name.startswith(OURS)]
    if not (ours or found):
        raise ConfigError(
            f"{file}: expected a timeline of Horovod, found no allreduce in it",
            remedy="HOROVOD_TIMELINE=FILE hvdtrain train … writes one",
        )
    last: Counter[int] = Counter()
    for tensor in ours or found:
        last.update(tensor.last)
    return Timeline(file, tuple(tensor.mean() for tensor in ours or found), dict(last.most_common()), whole)


@dataclass
class _Tensor:
    name: str
    stack: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    began: float = 0.0
    ready: float = 0.0
    sums: int = 0
    negotiation: float = 0.0
    queue: float = 0.0
    ring: float = 0.0
    longest: float = 0.0
    last: Counter[int] = field(default_factory=Counter)

    def begin(self, name: str, at: float) -> None:
        if not self.stack:
            self.began = at
            if name.startswith("NEGOTIATE"):
                self.ranks.clear()
            elif name == "ALLREDUCE":
                self.queue += at - self.ready
        self.stack.append(name)

    def end(self, at: float) -> None:
        name = self.stack.pop() if self.stack else ""
        if self.stack:  # something inside of an allreduce
            return
        if name == "NEGOTIATE_ALLREDUCE":
            self.negotiation += at - self.began
            self.ready = at
            if len(self.ranks) > 1:
                self.last[self.ranks[-1]] += 1
        elif name == "ALLREDUCE":
            self.sums += 1
            self.ring += at - self.began
            self.longest = max(self.longest, at - self.began)

    def mean(self) -> BucketTime:
        per = MICRO / self.sums
        name = self.name.removeprefix("allreduce.")
        return BucketTime(
            name, self.sums, per * self.negotiation, per * self.queue, per * self.ring, MICRO * self.longest
        )


def _take(event: dict[str, Any], tensors: dict[int, _Tensor]) -> None:
    kind, process, at, name = (event.get(key) for key in ("ph", "pid", "ts", "name"))
    if kind == "M" and name == "process_name" and isinstance(arguments := event.get("args"), dict):
        if isinstance(process, int) and "name" in arguments:  # process 0 is the file itself
            tensors[process] = _Tensor(str(arguments["name"]))
    elif isinstance(at, int | float) and (tensor := tensors.get(cast("int", process))):
        if kind == "B":
            tensor.begin(str(name), at)
        elif kind == "E":
            tensor.end(at)
        elif kind == "X" and str(name).isdigit():
            tensor.ranks.append(int(str(name)))


def _events(file: Path) -> Iterator[dict[str, Any]]:
    """One after the other, in the memory of two pieces."""
    decode = json.JSONDecoder().raw_decode
    rest = ""
    with file.open(encoding="utf-8", errors="replace") as open_file:
        while (piece := open_file.read(CHUNK)) and len(rest) < CHUNK:  # a longer rest is no event
            rest += piece
            position = 0
            while True:
                while position < len(rest) and rest[position] in BETWEEN:
                    position += 1
                try:
                    event, position = decode(rest, position)
                except ValueError:  # the next piece has the rest of it
                    break
                if isinstance(event, dict):
                    yield event
            rest = rest[position:]


def _closed(file: Path) -> bool:
    """Whether the array has its end."""
    with file.open("rb") as open_file:
        open_file.seek(max(open_file.seek(0, 2) - 64, 0))
        return re.search(rb"}\s*]\s*$", open_file.read()) is not None
