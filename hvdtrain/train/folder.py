"""The run directory. Rank 0 makes it and describes the run in it; what cannot be written is named, with its cause."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hvdtrain.errors import ConfigError, EnvironmentFault
from hvdtrain.files import write_whole


def claim(folder: Path, *, resume: str) -> None:
    """Make it, or go on in it.

    Raises:
        ConfigError: it holds a run already, and `resume` is `never`.
        EnvironmentFault: it cannot be made.
    """
    with _named(folder, "cannot be made"):
        if resume == "never" and (folder / "events.jsonl").exists():
            raise ConfigError(f"{folder} holds a run already", remedy="--resume auto to go on, or another --run.name")
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)


def write(path: Path, text: str) -> None:
    """Replace the file `path`.

    Raises:
        EnvironmentFault: it cannot be written; what was there stays.
    """
    with _named(path, "cannot be written"):
        write_whole(path, text)


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        around = path.parent
        raise EnvironmentFault(
            f"{path} {what}: {error.strerror}", remedy=f"df -h {around}; df -i {around}; ls -ld {around}"
        ) from None
