"""A small disk for a test, and what is left of it."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096  # bytes; tmpfs gives no less


class Space:
    """The disk that `folder` is a mount point of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    @property
    def free(self) -> int:
        """Bytes."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def leave(self, free: int) -> None:
        """All others are taken."""
        descriptor = os.open(self._filler, os.O_RDWR | os.O_CREAT)
        try:
            taken = os.fstat(descriptor).st_size
            if more := max(self.free - free, 0):
                os.posix_fallocate(descriptor, taken, more)
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)

    def read_only(self, on: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", self.folder], check=True)

    @contextmanager
    def read_only_later(self) -> Iterator[Callable[[], None]]:
        """What to call to make it so at once, though files are open; they can still be written. Undone at the end."""
        readable = self.folder.with_name(f"{self.folder.name}-readable")
        readable.mkdir()
        subprocess.run(["mount", "--bind", self.folder, readable], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", readable], check=True)
        covers = []

        def cover() -> None:
            subprocess.run(["mount", "--bind", readable, self.folder], check=True)
            covers.append(self.folder)

        try:
            yield cover
        finally:
            for mounted in (*covers, readable):
                subprocess.run(["umount", "--lazy", mounted], check=True)


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Space]:
    """A tmpfs at `folder`, within."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield Space(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
