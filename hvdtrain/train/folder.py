"""The run directory. Rank 0 makes it and describes the run in it; what cannot be written is named, with its cause."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hvdtrain import outcome
from hvdtrain.errors import INTERRUPTED, ConfigError, EnvironmentFault, HvdtrainError, of_system
from hvdtrain.files import replace_whole, write_whole
from hvdtrain.train import lock
from hvdtrain.train.lock import Owner


@contextmanager
def claimed(folder: Path, *, resume: str, heir_of: Owner | None = None) -> Iterator[Owner]:
    """Make it, or go on in it; within, no other job does.

    Args:
        heir_of: an owner known to be gone, or that has to give way.

    Raises:
        ConfigError: it holds a run already, and `resume` is `never`.
        EnvironmentFault: it cannot be made, or another job has it.
    """
    with ExitStack() as until_the_end:
        with naming(folder, "cannot be made"):
            if resume == "never" and (folder / "events.jsonl").exists():
                raise ConfigError(
                    f"{folder} holds a run already", remedy="--resume auto to go on, or another --run.name"
                )
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            owner = until_the_end.enter_context(lock.held(folder, heir_of=heir_of))
            outcome.forget(folder)
        yield owner


@contextmanager
def outcome_told(folder: Path, rank: int, *, goes_on: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """What happens within is told in the run's outcome, by the rank that also tells it to people.

    Args:
        goes_on: what does not end the run.
    """
    try:
        yield
    except goes_on:
        raise
    except HvdtrainError as error:
        if rank == 0 or not error.everyones:
            outcome.tell(folder, error.exit_code, str(error))
        raise
    except KeyboardInterrupt:
        if rank == 0:
            outcome.tell(folder, INTERRUPTED, "interrupted")
        raise
    except Exception as error:
        if isinstance(error, OSError) and (fault := of_system(error)):
            outcome.tell(folder, fault.exit_code, str(fault))
        else:
            outcome.tell(folder, HvdtrainError.exit_code, f"{type(error).__name__}: {error}")
        raise
    if rank == 0:
        outcome.forget(folder)  # what a worker may have told that was left behind
        outcome.tell(folder, 0, "finished")


def write(path: Path, text: str) -> None:
    """Replace the file `path`.

    Raises:
        EnvironmentFault: it cannot be written; what was there stays.
    """
    with naming(path, "cannot be written"):
        write_whole(path, text)


def write_bytes(path: Path, content: bytes) -> None:
    """Likewise, bytes."""
    with naming(path, "cannot be written"), replace_whole(path, "wb") as file:
        file.write(content)


@contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Within, what the disk says becomes a message that names `path`.

    Raises:
        EnvironmentFault: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        around = path.parent
        raise EnvironmentFault(
            f"{path} {what}: {error.strerror}", remedy=f"df -h {around}; df -i {around}; ls -ld {around}"
        ) from None
