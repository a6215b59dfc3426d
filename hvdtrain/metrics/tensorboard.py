"""A run's events as TensorBoard shows them: event files in the run directory, for those who look there.

Reports and evaluations become scalars over optimiser steps. A run that goes on from a checkpoint takes back what was
written of later steps, as the run itself does.
"""

import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hvdtrain.errors import EnvironmentFault
from hvdtrain.log import logger

OF_REPORTS = {
    "loss": "train/loss",
    "lr": "train/lr",
    "epoch": "train/epoch",
    "images_per_second": "speed/images_per_second",
    "step_seconds": "speed/step_seconds",
}
OF_EVALUATIONS = {
    "top1": "validation/top1",
    "top5": "validation/top5",
    "loss": "validation/loss",
    "average_top1": "validation/average_top1",
    "average_top5": "validation/average_top5",
    "average_loss": "validation/average_loss",
}
"""Field of an event (events.py) -> tag."""


def scalars(event: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Tags and values of one event; none of most.

    >>> dict(scalars("report", {"loss": 2.5, "parts": {"input": 0.1}, "efficiency": {"ratio": 0.9}}))
    {'train/loss': 2.5, 'seconds/input': 0.1, 'speed/efficiency': 0.9}
    """
    tags = {"report": OF_REPORTS, "evaluate": OF_EVALUATIONS}.get(event, {})
    yield from ((tag, fields[field]) for field, tag in tags.items() if field in fields)
    if event == "report":
        yield from ((f"seconds/{part}", seconds) for part, seconds in fields.get("parts", {}).items())
        if efficiency := fields.get("efficiency"):
            yield "speed/efficiency", efficiency["ratio"]


class Board:
    """Written by rank 0. What cannot be written, as on a full disk, is lost: the run goes on."""

    def __init__(self, folder: Path, *, step: int) -> None:
        """
        Args:
            step: that the run goes on from; 0 at its start.

        Raises:
            EnvironmentFault: the package tensorboard is not installed, or the folder cannot be written.
        """
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            raise EnvironmentFault(
                "run.tensorboard is on, and the package tensorboard is not installed",
                remedy="pip install 'hvdtrain[tensorboard]'",
            ) from None
        self._events, self._summaries = event_pb2, summary_pb2
        self._file = folder / f"events.out.tfevents.{time.time_ns()}.{platform.node()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer: Any = RecordWriter(self._file.open("xb"))
        except OSError as error:
            raise EnvironmentFault(f"{folder} cannot be written: {error.strerror}", remedy=f"df -h {folder}") from None
        self._append(file_version="brain.Event:2")
        if step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._append(step=step + 1, session_log=start)  # TensorBoard forgets what came later

    def write(self, event: str, *, step: int, **fields: Any) -> None:
        values = [
            self._summaries.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars(event, fields)
            if value is not None
        ]
        if values:
            self._append(step=step, summary=self._summaries.Summary(value=values))

    def close(self) -> None:
        if self._writer:
            with suppress(OSError):
                self._writer.close()
        self._writer = None

    def _append(self, **content: Any) -> None:
        if not self._writer:
            return
        try:
            self._writer.write(self._events.Event(wall_time=time.time(), **content).SerializeToString())
            self._writer.flush()
        except OSError as error:
            logger.warning("%s cannot be written: %s; the run goes on without it", self._file, error.strerror)
            self.close()
