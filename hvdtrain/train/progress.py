"""What a person sees of a run while it goes: a live line on a terminal, a plain line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hvdtrain.log import duration, logger


class Display:
    """Rank 0's view of the whole run."""

    def __init__(self, *, total_images: int, epochs: float, plain_every_seconds: float) -> None:
        self._total, self._epochs, self._every = total_images, epochs, plain_every_seconds
        self._last_plain = float("-inf")
        self._live: Progress | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=None),
                TextColumn("step {task.fields[step]}  {task.fields[speed]}  loss {task.fields[loss]}"),
                TimeRemainingColumn(),
                console=console,
                expand=True,
            )
            self._task = self._live.add_task("train", total=total_images, epoch="-", step="-", speed="-", loss="-")
            self._live.start()

    def show(
        self,
        *,
        step: int,
        epoch: float,
        images_seen: int,
        loss: float,
        images_per_second: float,
        efficiency: float | None = None,
    ) -> None:
        progress, speed = f"{epoch:.2f}/{self._epochs:.4g}", f"{images_per_second:,.0f} images/s"
        if efficiency is not None:
            speed += f" ({100 * efficiency:.0f} % efficient)"
        if self._live:
            self._live.update(
                self._task, completed=images_seen, epoch=progress, step=step, speed=speed, loss=f"{loss:.4f}"
            )
        elif time.monotonic() - self._last_plain >= self._every:
            self._last_plain = time.monotonic()
            left = self._total - images_seen
            told = f"  {duration(left / images_per_second)} left" if images_per_second > 0 else ""
            logger.info("epoch %s  step %d  %s  loss %.4f%s", progress, step, speed, loss, told)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
