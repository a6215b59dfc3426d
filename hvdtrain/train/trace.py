"""Every image that the steps of a run used, with its crop and flip, as comma-separated lines."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from hvdtrain.data.index import Index
from hvdtrain.data.loader import Plan
from hvdtrain.errors import EnvironmentFault
from hvdtrain.files import replace_whole

COLUMNS = ("images_seen", "epoch", "sample", "image", "top", "left", "height", "width", "flip")


class Trace:
    """This worker's part of it; a step's lines are on disk when the next step begins.

    It is evidence that was asked for, so a line that cannot be written ends the run.
    """

    def __init__(self, folder: Path, rank: int, index: Index) -> None:
        """
        Raises:
            EnvironmentFault: the file cannot be written.
        """
        self._path = folder / f"rank-{rank}.csv"
        self._names = index.names
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # a buffer would keep what a full disk refuses, and fail once more when it is closed
            self._file: IO[bytes] = self._path.open("ab", buffering=0)
        except OSError as error:
            raise _fault(self._path, error) from None
        if self._file.tell() == 0:
            try:
                self._write([COLUMNS])
            except EnvironmentFault:
                self._file.close()
                raise

    def write(self, plan: Plan) -> None:
        """
        Raises:
            EnvironmentFault: the disk is full, or gone.
        """
        columns = plan.samples.tolist(), plan.epochs.tolist(), plan.windows.tolist(), plan.flips.tolist()
        self._write(
            [plan.images_seen, epoch, sample, self._names[sample], *(int(edge) for edge in window), int(flip)]
            for sample, epoch, window, flip in zip(*columns, strict=True)
        )

    def forget_after(self, images_seen: int) -> None:
        """Remove the lines of steps that will be done again: those that came after `images_seen`.

        Raises:
            EnvironmentFault: the file cannot be written.
        """
        self.close()
        _forget_after(self._path, images_seen)
        try:
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise _fault(self._path, error) from None

    def close(self) -> None:
        """
        Raises:
            EnvironmentFault: a network disk says only now that it is full.
        """
        try:
            self._file.close()
        except OSError as error:
            raise _fault(self._path, error) from None

    def _write(self, lines: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text).writerows(lines)
        rest = text.getvalue().encode(errors="surrogateescape")
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _fault(self._path, error) from None


def forget_after(folder: Path, images_seen: int) -> None:
    """Remove what steps used that were lost when the run was stopped: those that came after `images_seen`.

    Raises:
        EnvironmentFault: a file cannot be read or written.
    """
    for path in folder.glob("rank-*.csv"):
        _forget_after(path, images_seen)


def _forget_after(path: Path, images_seen: int) -> None:
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            read = csv.reader(line.replace("\0", "") for line in file)
            lines = [line for line in read if len(line) == len(COLUMNS) and line[0].isdecimal()]
        with replace_whole(path, "wb") as whole:
            text = io.StringIO()
            csv.writer(text).writerows([COLUMNS, *(line for line in lines if int(line[0]) <= images_seen)])
            whole.write(text.getvalue().encode(errors="surrogateescape"))
    except OSError as error:
        raise _fault(path, error) from None


def _fault(path: Path, error: OSError) -> EnvironmentFault:
    return EnvironmentFault(
        f"{path} cannot be written: {error.strerror}",
        remedy=f"df -h {path.parent}, then --resume auto; or --run.trace_images false",
    )
