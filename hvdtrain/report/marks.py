"""What is marked upon a figure with an axis of time: where a run did not train, and where its workers changed."""

import math
from typing import TYPE_CHECKING

from hvdtrain.figures import INK, PALE
from hvdtrain.report.canvas import Clock
from hvdtrain.report.pauses import Reason, spans
from hvdtrain.report.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS: dict[Reason, tuple[str, str, str]] = {  # colours of the face and of what is hatched upon it
    "evaluation": ("#dddddd", PALE, ""),
    "checkpoint": ("#4d4d4d", PALE, ""),
    "down": ("white", PALE, "xx"),
    "reset": ("white", "#b4b4b4", "--"),
}
FEW_PAUSES = 120  # of a kind, beyond which they would be a grey fog
FEW_LINES = 40  # beyond which they are short marks at the upper edge
CHARACTER = 0.0125  # of the axes' width, in FONT
FONT = 7.5


def mark_pauses(axes: "Axes", run: Run, clock: Clock) -> None:
    """Grey, upon whatever is drawn, where there was no training; the legend says what it was."""
    begin, end = axes.get_xlim()
    found = [span for span in spans(run) if clock(span.end) > begin]
    for reason, (colour, edge, hatch) in LOOKS.items():
        those = [span for span in found if span.reason == reason]
        for i, span in enumerate(those if len(those) <= FEW_PAUSES else ()):
            axes.axvspan(
                max(clock(span.begin), begin),
                min(clock(span.end), end),
                facecolor=colour,
                edgecolor=edge,
                hatch=hatch,
                linewidth=0,
                zorder=3,
                label=reason if i == 0 else None,
            )
    axes.set_xlim(begin, end)


def mark_changes(axes: "Axes", run: Run, clock: Clock) -> None:
    """A line where each new set of workers began, with how many there were before and then, as far as there is room."""
    begin, end = axes.get_xlim()
    found = [
        (clock(start.time), f"{run.starts[i - 1].world_size}\N{RIGHTWARDS ARROW}{start.world_size}")
        for i, start in enumerate(run.starts)
        if i and run.changed(i) and begin <= clock(start.time) <= end
    ]
    bottom = 0.0 if len(found) <= FEW_LINES else 0.94
    free = -math.inf
    for i, (at, words) in enumerate(found):
        axes.axvline(at, bottom, color="white", linewidth=2.8, zorder=4)  # else dark upon dark
        axes.axvline(
            at, bottom, color=INK, linewidth=1, linestyle=(0, (4, 2)), zorder=4, label=None if i else "workers change"
        )
        half = CHARACTER * len(words) / 2 * (end - begin)
        if at - half >= free:
            place = axes.get_xaxis_transform()
            axes.text(at, 1.01, words, transform=place, ha="center", va="bottom", fontsize=FONT, color=INK)
            free = at + half
    axes.set_xlim(begin, end)
