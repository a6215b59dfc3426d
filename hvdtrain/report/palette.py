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
