"""What a run's jobs have printed, and go on printing: over all its submissions and requeues."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hvdtrain.errors import ConfigError
from hvdtrain.slurm import jobs, record

LOOK_SECONDS = 0.25


def files(run_dir: Path) -> list[Path]:
    """That a run's jobs print to, the oldest first; a job that has not started has none yet."""
    return [file for each in record.submissions(run_dir) if (file := run_dir / each.output).is_file()]


def log_file(run_dir: Path, rank: int) -> Path:
    """
    Raises:
        ConfigError: there is none of this rank.
    """
    file = run_dir / "logs" / f"rank-{rank}.log"
    if not file.is_file():
        there = sorted(
            int(each.stem[5:]) for each in (run_dir / "logs").glob("rank-*.log") if each.stem[5:].isdecimal()
        )
        ranks = f"ranks 0 to {there[-1]}" if there else "no rank yet"
        raise ConfigError(f"{file}: no such file; {run_dir / 'logs'} has {ranks}", remedy=f"hvdtrain status {run_dir}")
    return file


def written(files: Callable[[], list[Path]], *, over: Callable[[], bool]) -> Iterator[bytes]:
    """What is in the files and what comes to them, until `over`, and then the rest.

    Args:
        files: looked up each time: a job that was submitted again prints to a new one.
    """
    read: dict[Path, int] = {}
    asked = last = False
    while True:
        last, asked = asked, over()
        for file in files():
            with file.open("rb") as opened:
                if opened.seek(0, 2) < read.get(file, 0):  # somebody put another file there
                    read[file] = 0
                opened.seek(read.get(file, 0))
                while part := opened.read(1 << 20):
                    yield part
                read[file] = opened.tell()
        if last and asked:
            return
        if not asked:
            time.sleep(LOOK_SECONDS)


def over(run_dir: Path) -> Callable[[], bool]:
    """Whether nothing more can come of the run's job; asked no more often than Slurm likes."""
    next_look, answer = 0.0, False

    def ask() -> bool:
        nonlocal next_look, answer
        if time.monotonic() >= next_look:
            job = jobs.of(run_dir)
            answer = job is None or not job.live or (job.state == "UNKNOWN" and not job.away)
            next_look = time.monotonic() + (0 if answer else jobs.OFTEN_SECONDS)
        return answer

    return ask
