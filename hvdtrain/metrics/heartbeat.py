"""A run's sign of life: its targets file, touched now and then."""

import os
import stat
import threading
from pathlib import Path

from hvdtrain.files import write_whole
from hvdtrain.log import logger
from hvdtrain.metrics import targets

BEAT_SECONDS = 15.0  # a quarter of targets.STALE_SECONDS: three may be late


class Heartbeat:
    """Keeps the targets file of a living run, and clears away those of dead ones beside it, until `close`.

    Of two runs in one directory the file is the later one's: the earlier leaves it alone, and writes its own again when
    it is gone. So does a run that was suspended for so long that it was taken for dead.
    """

    def __init__(self, path: Path, text: str, *, beat_seconds: float = BEAT_SECONDS) -> None:
        """
        Args:
            path: see `targets.file`; written at once, its folder made. Where that fails, the log says so, and it is
                tried again at each beat: a run need not be watched.
            text: its content, see `targets.text`.
        """
        self._path, self._text, self._beat_seconds = path, text, beat_seconds
        try:
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            logger.warning("Prometheus does not find this run: %s cannot be written: %s", path, error.strerror)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and remove the file if it is ours."""
        self._over.set()
        self._thread.join()
        try:
            if self._path.read_bytes() == self._text.encode():
                self._path.unlink()
        except OSError as error:
            logger.debug("%s could not be removed: %s", self._path, error)

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _live(self) -> None:
        while not self._over.wait(self._beat_seconds):
            try:
                self._beat()
            except OSError as error:
                logger.debug("%s could not be touched: %s", self._path, error)

    def _beat(self) -> None:
        try:
            if self._path.read_bytes() == self._text.encode():
                os.utime(self._path)  # without a time: the file system's
        except FileNotFoundError:
            self._write()
        for path in targets.sweep(self._path.parent):
            logger.debug("removed %s: its run is dead", path)

    def _write(self) -> None:
        _make_as_its_parent(self._path.parent)
        write_whole(self._path, self._text)


def _make_as_its_parent(folder: Path) -> None:
    """Who may make run directories in the folder around may tell of them here, as far as this process's umask lets
    others write at all."""
    around = folder.parent.stat().st_mode
    try:
        folder.mkdir(mode=around & 0o777)  # less the umask
    except FileExistsError:
        return
    # mkdir takes no sticky bit, and some file systems hand no setgid bit down
    folder.chmod(folder.stat().st_mode & 0o777 | around & (stat.S_ISVTX | stat.S_ISGID))
