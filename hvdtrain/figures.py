"""What all figures share: size, colours, style, and how they become PNG. matplotlib is imported where it draws."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, DPI = 9.0, 150  # inches, dots per inch
INK, PALE, GRID = "#222222", "#6b6b6b", "#e4e4e4"
# Of Okabe and Ito, which colour-blind people tell apart.
BLUE, RED, GREEN, PINK, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"

LineStyle = str | tuple[int, tuple[int, ...]]
_RUNS: tuple[tuple[str, LineStyle], ...] = (
    (BLUE, "-"),
    (RED, "--"),
    (GREEN, "-."),
    (PINK, ":"),
    (ORANGE, (0, (6, 1, 1, 1, 1, 1))),
    ("#000000", (0, (1, 3))),
)


def run_looks(count: int) -> list[tuple[str, LineStyle]]:
    """Colour and line of each of several runs in one picture; from the seventh on they come again."""
    return [_RUNS[i % len(_RUNS)] for i in range(count)]


def figure(height: float) -> "Figure":
    """
    Args:
        height: inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: "Figure", *, grid: bool = True) -> bytes:
    for axes in figure.axes:
        if axes.get_label() != "<colorbar>":
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            if grid:
                axes.grid(axis="y", color=GRID, linewidth=0.8)
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
