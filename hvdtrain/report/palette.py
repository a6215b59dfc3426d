"""One look for each cause of lost efficiency, wherever it is drawn: a colour, and a texture, for paper that is printed
in grey."""

from dataclasses import dataclass

from hvdtrain.figures import BLUE, GREEN, ORANGE, PINK, RED


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
    "efficiency": Look(GREEN, "", "█", "green"),
    "input": Look(ORANGE, "////", "▞", "dark_orange"),
    "contention": Look(PINK, "xxxx", "▒", "magenta"),
    "straggler": Look(RED, "\\\\\\\\", "▚", "red"),
    "communication": Look(BLUE, "....", "▓", "blue"),
    "rest": Look("#999999", "", "░", "bright_black"),
}
