"""What a bench has found: as a table, as JSON that says where it comes from, and as a picture."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hvdtrain.bench.rounds import Goal, Ratio, Rounds, Spread, ratios
from hvdtrain.errors import EnvironmentFault
from hvdtrain.files import pretty_json, replace_whole, write_whole
from hvdtrain.provenance import hardware, revision

PACKAGES = ("torch", "torchvision", "horovod", "mpi4py", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "numpy")


@dataclass(frozen=True)
class Result:
    kind: str
    """Of bench: step, allreduce, input, …"""
    title: str
    """What was measured and under which conditions, in a line."""
    unit: str
    """Of the figures; more is better."""
    figures: Rounds
    goals: Sequence[Goal] = ()
    limit: str | None = None
    """The contender that shows what this machine can give at most."""
    notes: Sequence[str] = ()
    details: dict[str, Any] = field(default_factory=dict)
    """More for the JSON."""

    @property
    def ratios(self) -> list[Ratio]:
        return ratios(self.figures, self.goals)

    def text(self) -> str:
        """Two tables of at most 100 columns: the figures, and the ratios with their goals."""
        width = max(14, *(len(name) + 2 for name in self.figures))
        rounds = max(map(len, self.figures.values()))
        lines = [self.title, f"{rounds} rounds in turn; median and its interval", ""]
        limits = f"{'of the limit':>14}" if self.limit else ""
        lines.append(f"{'':{width}}{self.unit:>12}{'low':>10}{'high':>10}{limits}")
        for name, values in self.figures.items():
            lines.append(f"{name:{width}}{_columns(Spread.of(values), 12, _four)}{self._of_limit(name)}")
        if found := self.ratios:
            width = max(width, *(len(each.goal.name) + 2 for each in found))
            lines += ["", f"{'ratio':{width}}{'median':>8}{'low':>10}{'high':>10}{'goal':>8}"]
            lines += [_line(each, width) for each in found]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])

    def record(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "title": self.title,
            "unit": self.unit,
            "command": shlex.join(["hvdtrain", *sys.argv[1:]]),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "code": revision(),
            "hardware": hardware(),
            "versions": _versions(),
            "rounds": self.figures,
            "limit": self.limit,
            "ratios": [
                {"name": each.goal.name, "goal": each.goal.least, "verdict": each.verdict, **asdict(each.spread)}
                for each in self.ratios
            ],
            **self.details,
        }

    def save(self, file: Path | None, figure: Path | None = None) -> None:
        """JSON to `file`, and a picture to `figure`.

        Raises:
            EnvironmentFault: one cannot be written.
        """
        try:
            self._save(file, figure)
        except OSError as error:
            raise EnvironmentFault(f"{error.filename}: {error.strerror}", remedy="name a file in a folder") from error

    def _save(self, file: Path | None, figure: Path | None) -> None:
        if file:
            write_whole(file, pretty_json(self.record()))
        if figure:
            with replace_whole(figure, "wb") as picture:
                picture.write(self.png())

    def png(self) -> bytes:
        """Each contender's rounds as dots and its median as a bar's end; the limit as a line."""
        from hvdtrain.figures import BLUE, INK, PALE, figure, png

        picture = figure(0.9 + 0.36 * len(self.figures))
        axes = picture.subplots()
        for row, (name, values) in enumerate(self.figures.items()):
            axes.barh(row, Spread.of(values).median, height=0.62, color=BLUE if "ours" in name else "#c9c9c9")
            axes.plot(values, [row] * len(values), "o", color=INK, markersize=2.5, alpha=0.6)
        if self.limit:
            axes.axvline(Spread.of(self.figures[self.limit]).median, color=PALE, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(self.figures)), list(self.figures))
        axes.invert_yaxis()
        axes.set_xlabel(self.unit)
        axes.set_title(self.title, fontsize=9, loc="left")
        return png(picture, grid=False)

    def _of_limit(self, name: str) -> str:
        if self.limit is None:
            return ""
        pairs = zip(self.figures[name], self.figures[self.limit], strict=True)
        return f"{Spread.of([value / most for value, most in pairs]).median:>14.3f}"


def _columns(spread: Spread, first: int, number: Any) -> str:
    return f"{number(spread.median):>{first}}{number(spread.low):>10}{number(spread.high):>10}"


def _line(each: Ratio, width: int) -> str:
    goal = f"{each.goal.least:>8.2f}  {each.verdict}" if each.goal.least is not None else ""
    return f"{each.goal.name:{width}}{_columns(each.spread, 8, lambda value: f'{value:.3f}')}{goal}"


def _four(value: float) -> str:
    """Four digits.

    >>> [_four(value) for value in (1234.5, 12.345, 0.012345)]
    ['1,234', '12.35', '0.01235']
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
