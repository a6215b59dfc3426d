"""The run directory. Rank 0 makes it and describes the run in it; what cannot be written is named, with its cause."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hvdtrain import outcome
from hvdtrain.errors import INTERRUPTED, ConfigError, EnvironmentFault, HvdtrainError
from hvdtrain.files import write_whole
from hvdtrain.train import lock


@contextmanager
def claimed(folder: Path, *, resume: str) -> Iterator[None]:
    """Make it, or go on in it; within, no other job does.

    Raises:
        ConfigError: it holds a run already, and `resume` is `never`.
        EnvironmentFault: it cannot be made, or another job has it.
    """
    with ExitStack() as until_the_end:
        with _named(folder, "cannot be made"):
            if resume == "never" and (folder / "events.jsonl").exists():
                raise ConfigError(
                    f"{folder} holds a run already", remedy="--resume auto to go on, or another --run.name"
                )
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            until_the_end.enter_context(lock.held(folder))
            outcome.forget(folder)
        yield


@contextmanager
def outcome_told(folder: Path, rank: int) -> Iterator[None]:
    """What happens within is told in the run's outcome, by the rank that also tells it to people."""
    try:
        yield
    except HvdtrainError as error:
        if rank == 0 or not error.everyones:
            outcome.tell(folder, error.exit_code, str(error))
        raise
    except KeyboardInterrupt:
        if rank == 0:
            outcome.tell(folder, INTERRUPTED, "interrupted")
        raise
    except Exception as error:
        outcome.tell(folder, HvdtrainError.exit_code, f"{type(error).__name__}: {error}")
        raise
    if rank == 0:
        outcome.tell(folder, 0, "finished")


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
