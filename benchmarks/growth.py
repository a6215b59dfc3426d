"""What grows with the number of workers, and by which law: `python benchmarks/growth.py --help`.

No machine here has a thousand workers, but each of them, and rank 0 above all, can be given what a thousand would give
it. Three parts, each in processes of its own for every k:

    run      the whole program as rank 0 and as rank k - 1, among k workers that do as it does (crowd.py)
    watch    rank 0's watchdog with k - 1 real TCP connections (watched.py, followers.py)
    message  the longest messages that k workers can give rise to (messages.py)

For each quantity v(k) the exponent p of a + b k^p is taken from the last three of its values,
[v(16 k) - v(4 k)] / [v(4 k) - v(k)] = 4^p; what differs by no more than its noise is O(1), and where it grows without
such a p the law is unclear. A worker's share is that of the growth from the first to the last.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import messages

from hvdtrain import provenance
from hvdtrain.data import demo

SIZES = (8, 64, 256, 1024)  # each four times the one before, but for the first
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Quantity:
    name: str
    limit: float
    """What it may be at the largest k."""
    noise: float = 0.0
    """By how much it may differ without having grown, in its unit."""
    unit: float = 1.0
    digits: int = 0


def quantities() -> list[Quantity]:
    """In the order of the table. Limits: 2 % of a core, 64 MB and a second at the start, a report below 0.1 % of a
    50 Gbit/s link every five seconds, files below 2 MB, messages that a screen can hold."""
    rank_0, other = "rank 0: ", "rank k - 1: "
    kilo = 1000.0
    both = [
        Quantity("start: collectives", 500),
        Quantity("start: kB received", 64_000, unit=kilo),
        Quantity("start: CPU seconds", 4.0, noise=0.7, digits=2),
        Quantity("index: kB received", 100_000, unit=kilo),
        Quantity("files of data and run read", 32, noise=2),
        Quantity("report: kB received", 1000, unit=kilo),
        Quantity("log: bytes of the whole run", 10_000, noise=200),
        Quantity("screen: bytes of the whole run", 10_000, noise=200),
        Quantity("Prometheus: series", 150),
        Quantity("Prometheus: page bytes", 16_000, noise=200),
        Quantity("threads", 16, noise=3),
        Quantity("files open", 64, noise=3),
        Quantity("resident MB", 1000, noise=20, unit=1e6),
    ]
    return [
        *(Quantity(rank_0 + q.name, q.limit, q.noise, q.unit, q.digits) for q in both),
        Quantity(rank_0 + "environment.json: kB", 2000, unit=kilo, noise=0.1, digits=1),
        Quantity(rank_0 + "targets file: kB", 2000, unit=kilo, digits=1),
        Quantity(rank_0 + "events: MB an hour", 40, noise=0.01, unit=1e6, digits=2),
        Quantity(rank_0 + "resume: kB received", 200_000, unit=kilo, noise=1),
        Quantity(rank_0 + "hvdtrain report: characters", 5000, noise=1000),
        *(Quantity(other + q.name, q.limit, q.noise, q.unit, q.digits) for q in both),
        Quantity("watch: connections", 1023),
        Quantity("watch: files open", 1100),
        Quantity("watch: threads", 1),
        Quantity("watch: CPU seconds until all have come", 1.0, digits=3),
        Quantity("watch: kB received a second", 200, unit=kilo, digits=1),
        Quantity("watch: kB sent a second", 200, unit=kilo, digits=1),
        Quantity("watch: segments a second", 5000),
        Quantity("watch: % of a core", 2.0, noise=0.02, digits=2),
        Quantity("watch: CPU seconds when all go at once", 1.0, noise=0.002, digits=3),
        Quantity("watch: MB of memory", 16, unit=1e6, digits=2),
        *(Quantity(name, 1500, noise=0) for name in messages.figures(8) if "characters" in name),
        Quantity("messages: CPU milliseconds for all of these", 500, noise=1),
        Quantity("all fail at once: lines before the launcher ends them", 16),
    ]


def main() -> None:
    options = arguments()
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        for size in options.sizes:
            for name, value in figures(size, Path(folder) / str(size), options.seconds).items():
                measured.setdefault(name, []).append(value)
    report(options, measured)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what grows with the number of workers.")
    parser.add_argument("--sizes", type=numbers, default=SIZES, help="numbers of workers; default: 8,64,256,1024")
    parser.add_argument("--seconds", type=float, default=10.0, help="that the watch is measured for")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def figures(size: int, folder: Path, seconds: float) -> dict[str, float]:
    """Of all parts, by the names of `quantities`, in bytes, seconds and pieces."""
    folder.mkdir()
    demo.write(folder / "digits")
    found = {}
    for who, rank in (("rank 0", 0), ("rank k - 1", size - 1)):
        found |= {f"{who}: {name}": value for name, value in part("crowd.py", size, rank, folder).items()}
    return found | part("watched.py", size, seconds) | messages.figures(size)


def part(program: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def exponent(values: Sequence[float]) -> float:
    """p of a + b k^p, of values at k, 4k and 16k; NaN where one of them does not exceed the one before.

    >>> exponent([3 + 2 * k for k in (64, 256, 1024)]), exponent([k**2 for k in (64, 256, 1024)])
    (1.0, 2.0)
    """
    first, middle, last = values[-3:]
    if last <= middle or middle <= first:
        return math.nan
    return math.log((last - middle) / (middle - first), 4)


def law(values: Sequence[float], noise: float) -> str:
    """
    >>> law([100, 101, 99, 102], noise=5), law([8, 64, 256, 1024], noise=0), law([1, 8, 12, 16], noise=0)
    ('O(1)', 'O(k)', 'O(log k)')
    >>> law([64, 4096, 65536, 2**20], noise=0)
    'O(k^2.0)'
    >>> [law(values, noise=0) for values in ([1, 2, 2, 100000], [64, 60, 40, 4096], [8, 64, 64, 64], [9, 3, 5, 5])]
    ['unclear', 'unclear', 'unclear', 'O(1)']
    """
    if max(values) - min(values) <= noise:
        return "O(1)"
    p = exponent(values)
    if math.isnan(p):
        return "O(1)" if values[-1] <= values[0] + noise else "unclear"
    return "O(log k)" if p < 0.25 else f"O(k^{p:.1f})" if not 0.75 < p < 1.25 else "O(k)"


def report(options: argparse.Namespace, measured: dict[str, list[float]]) -> None:
    sizes = options.sizes
    head = "".join(f"{size:>11,}" for size in sizes)
    print(f"{'at k workers':56}{head}  {'law':9}{'a worker':>10}{'limit':>10}")
    rows = []
    for quantity in quantities():
        values = [value / quantity.unit for value in measured[quantity.name]]
        grows = law(values, quantity.noise)
        each = (values[-1] - values[0]) / (sizes[-1] - sizes[0]) if grows != "O(1)" else 0.0
        holds = values[-1] <= quantity.limit
        rows.append({"name": quantity.name, "values": values, "law": grows, "of each worker": each, "holds": holds})
        shown = "".join(f"{value:>11,.{quantity.digits}f}" for value in values)
        judged = f"{quantity.limit:>10,.0f}  {'holds' if holds else 'missed'}"
        print(f"{quantity.name:56}{shown}  {grows:9}{f'{each:.3g}' if each else '':>10}{judged}")
    if options.json:
        told = {key: value for key, value in vars(options).items() if key != "json"}
        machine = {"commit": provenance.revision(), **provenance.hardware()}
        record = {"date": time.strftime("%Y-%m-%d"), "options": told, "machine": machine, "rows": rows}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
