"""One look for each cause of lost efficiency, wherever it is drawn: a colour of Okabe and Ito, which colour-blind
people tell apart, and a texture, for paper that is printed in grey."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    colour: str
    hatch: str
    """matplotlib's."""
    cell: str
    """What a bar on a terminal is made of."""
    terminal: str
    """The nearest of rich's colours."""


LOOKS = {
    "efficiency": Look("#009E73", "", "█", "green"),
    "input": Look("#E69F00", "////", "▞", "dark_orange"),
    "contention": Look("#CC79A7", "xxxx", "▒", "magenta"),
    "straggler": Look("#D55E00", "\\\\\\\\", "▚", "red"),
    "communication": Look("#0072B2", "....", "▓", "blue"),
    "rest": Look("#999999", "", "░", "bright_black"),
}

INK, PALE, GRID = "#222222", "#6b6b6b", "#e4e4e4"

LineStyle = str | tuple[int, tuple[int, ...]]
_RUNS: tuple[tuple[str, LineStyle], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (6, 1, 1, 1, 1, 1))),
    ("#000000", (0, (1, 3))),
)


def run_looks(count: int) -> list[tuple[str, LineStyle]]:
    """Colour and line of each of several runs in one picture; from the seventh on they come again."""
    return [_RUNS[i % len(_RUNS)] for i in range(count)]
