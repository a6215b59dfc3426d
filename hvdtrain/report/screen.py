"""A snapshot for people: one screen, or one line."""

import io
import math
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from hvdtrain.log import duration
from hvdtrain.report.palette import LOOKS
from hvdtrain.report.records import State
from hvdtrain.report.snapshot import Lag, Snapshot
from hvdtrain.report.text import wrapped
from hvdtrain.report.units import UNKNOWN, milliseconds, number, plural, tenths

COLUMNS = 100
LABEL = 12  # columns before a value
COLOURS = {
    State.RUNNING: "green",
    State.CHANGING: "yellow",
    State.FINISHED: "blue",
    State.PREEMPTED: "yellow",
    State.KILLED: "red",
}
SEEN = 0.0005  # of a step
BAR = 60  # characters
LAG_BAR = 30


def whole(now: Snapshot) -> RenderableType:
    """At most COLUMNS wide and 20 lines long."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    colour = COLOURS[State(now.state)]
    table.add_row("run", Text.assemble((now.run, "bold"), "  ", (_state(now), f"bold {colour}")))
    table.add_row("", _lines(now.what))
    table.add_row()
    table.add_row("epoch", Text.assemble(_progress(now), _left(now)))
    table.add_row("speed", f"{number(now.images_per_second)} images/s   a step of {milliseconds(now.step_seconds)}")
    table.add_row("training", _training(now))
    table.add_row("last", _last(now))
    if math.isfinite(now.efficiency):
        table.add_row()
        table.add_row("efficiency", _lines(_efficiency(now)))
        table.add_row("", efficiency_bar(now))
        table.add_row("", _legend(now))
    for i, lag in enumerate(now.slowest):
        if i == 0:
            table.add_row()
        table.add_row("slowest" if i == 0 else "", _lag(lag, now.slowest))
    for i, warning in enumerate(now.warnings):
        if i == 0:
            table.add_row()
        table.add_row("warnings" if i == 0 else "", Text(_lines(warning), style="red"))
    return table


def _state(now: Snapshot) -> str:
    since = duration(now.heard_age_seconds)
    if now.state == State.CHANGING.value:
        return f"changing workers for {since}"
    return now.state if now.state == State.RUNNING.value else f"{now.state} {since} ago"


def _lines(text: str) -> str:
    """Broken before rich would, which minds no units."""
    return "\n".join(wrapped(text, columns=COLUMNS - LABEL))


def plain(now: Snapshot) -> str:
    """The same without colours and without blanks at line ends."""
    written = io.StringIO()
    Console(file=written, width=COLUMNS).print(whole(now))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def line(now: Snapshot) -> str:
    """One line, with the two causes that cost most."""
    if now.state != State.RUNNING.value:
        state = "changing workers" if now.state == State.CHANGING.value else now.state
        return f"{state} at epoch {now.epoch:.2f}/{now.epochs:.4g}, step {now.step:,}{_top1(now)}"
    words = [
        f"epoch {now.epoch:.2f}/{now.epochs:.4g}",
        f"step {now.step:,}",
        *([plural(now.world_size, "worker")] if now.changes else []),
        f"{number(now.images_per_second)} images/s",
        f"loss {now.loss:.4f}" if math.isfinite(now.loss) else "loss not finite",
    ]
    if math.isfinite(now.efficiency):
        worst = sorted(now.losses.items(), key=lambda each: -each[1])[:2]
        words.append(f"efficiency {tenths(now.efficiency)} %: {', '.join(f'{c} {tenths(x)} %' for c, x in worst)}")
    if math.isfinite(now.left_seconds):
        words.append(f"{duration(now.left_seconds)} left")
    return "  ".join(words)


def _top1(now: Snapshot) -> str:
    return f", top-1 {100 * now.top1:.2f} %" if math.isfinite(now.top1) else ""


def _progress(now: Snapshot) -> Text:
    share = now.share_done if math.isfinite(now.share_done) else 0.0
    done = _cells(share, LAG_BAR)
    bar = Text("█" * done, style="green") + Text("░" * (LAG_BAR - done), style="bright_black")
    return Text.assemble(f"{now.epoch:.2f} of {now.epochs:.4g}  ", bar, f"  {100 * share:.0f} %")


def _left(now: Snapshot) -> str:
    return f"   {duration(now.left_seconds)} left" if math.isfinite(now.left_seconds) else ""


def _training(now: Snapshot) -> str:
    loss = f"{now.loss:.4f}" if math.isfinite(now.loss) else UNKNOWN
    top1 = f"   top-1 {100 * now.top1:.2f} % at epoch {now.top1_epoch:.2f}" if math.isfinite(now.top1) else ""
    return f"step {now.step:,}   loss {loss}{top1}"


def _last(now: Snapshot) -> str:
    running = now.state == State.RUNNING.value and math.isfinite(now.report_every_seconds)
    every = f", one every {duration(now.report_every_seconds)}" if running else ""
    report = (
        f"report {duration(now.report_age_seconds)} ago{every}"
        if math.isfinite(now.report_age_seconds)
        else "no report yet"
    )
    saved = f"   checkpoint {duration(now.checkpoint_age_seconds)} ago" if now.checkpoint else "   no checkpoint yet"
    return report + saved


def _efficiency(now: Snapshot) -> str:
    interval = f" ({tenths(now.low)} to {tenths(now.high)} %)" if math.isfinite(now.low) else ""
    return f"{tenths(now.efficiency)} %{interval} of {now.against}"


def _shares(now: Snapshot) -> dict[str, float]:
    """The efficiency and what was lost, the most first."""
    return {"efficiency": now.efficiency, **dict(sorted(now.losses.items(), key=lambda each: -each[1]))}


def efficiency_bar(now: Snapshot) -> Text:
    """BAR cells for 100 %; a loss below 0 has none."""
    bar, told, drawn = Text(), 0.0, 0
    for name, share in _shares(now).items():
        told += max(share, 0.0) if math.isfinite(share) else 0.0
        cells = _cells(told, BAR) - drawn
        bar.append(LOOKS[name].cell * max(cells, 0), style=LOOKS[name].terminal)
        drawn += max(cells, 0)
    return bar


def _legend(now: Snapshot) -> Text:
    """What was lost, the most first; what cannot be seen in the bar is left out."""
    legend = Text()
    for name, share in _shares(now).items():
        if name != "efficiency" and abs(share) >= SEEN:
            legend.append(f"{LOOKS[name].cell} ", style=LOOKS[name].terminal)
            legend.append(f"{name} {tenths(share)}  ")
    return legend


def _lag(lag: Lag, slowest: Sequence[Lag]) -> Text:
    who = max(len(f"rank {each.rank} {each.host}") for each in slowest)
    bar = Text("█" * _cells(lag.seconds / max(slowest[0].seconds, 1e-9), LAG_BAR), style=LOOKS["straggler"].terminal)
    return Text.assemble(f"{f'rank {lag.rank} {lag.host}':<{who}}{milliseconds(lag.seconds):>10} later  ", bar)


def _cells(share: float, width: int) -> int:
    """Of a bar of `width`; none for what is not known."""
    return round(width * min(max(share, 0.0), 1.0)) if not math.isnan(share) else 0
