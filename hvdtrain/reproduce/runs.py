"""Many training runs side by side, each a process of its own; what is finished is not run again.

folder/runs/<name>/          the run directory, see train
folder/runs/<name>/code.txt  the commit that each of its starts was made with
folder/logs/<name>.txt       what it printed
"""

import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtrain.config.load import Parser, add_options, from_file, from_options
from hvdtrain.config.schema import Config
from hvdtrain.distributed import launch
from hvdtrain.errors import ConfigError, HvdtrainError
from hvdtrain.log import logger
from hvdtrain.reproduce.progress import Display
from hvdtrain.reproduce.results import Event, finished, read_events

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 20.0
LAST_LINES = 12


@dataclass(frozen=True)
class Run:
    name: str
    options: tuple[str, ...]  # of hvdtrain train
    ranks: int
    parent: Path  # the folder of the experiment

    @property
    def folder(self) -> Path:
        return self.parent / "runs" / self.name

    @property
    def log(self) -> Path:
        return self.parent / "logs" / f"{self.name}.txt"

    @property
    def events(self) -> list[Event]:
        return read_events(self.folder / "events.jsonl")

    @property
    def finished(self) -> bool:
        return finished(self.events)

    @property
    def code(self) -> list[str]:
        """Commits or versions, one for each start."""
        return (self.folder / "code.txt").read_text().split()

    def command(self) -> list[str]:
        place = [f"--run.dir={self.folder.parent}", f"--run.name={self.name}", "--resume=auto"]
        return launch.command(self.ranks, ["train", *self.options, *place])


def resolve(options: Sequence[str]) -> Config:
    """The configuration that `hvdtrain train` makes of `options`."""
    parser = Parser(prog="hvdtrain train")
    source = add_options(parser)
    return from_options(source, parser.parse_args(options))


def refuse_others(runs: Sequence[Run]) -> None:
    """Raise where a run directory belongs to other settings than those it would go on with.

    Raises:
        ConfigError
    """
    others = [run for run in runs if _other(run)]
    if others:
        raise ConfigError(
            f"{len(others)} of {len(runs)} run directories were made with other settings than today's, "
            f"the first is {others[0].folder}",
            remedy=f"another --dir, or rm -r {shlex.quote(str(others[0].folder.parent))}",
        )


def _other(run: Run) -> bool:
    file = run.folder / "config.yaml"
    if not file.exists():  # rank 0 writes it before anything that counts
        return False
    try:
        return from_file(file).digest() != resolve(run.options).digest()
    except ConfigError:  # settings of another version
        return True


@contextmanager
def alone_in(folder: Path) -> Iterator[int]:
    """Hold `folder` for this process and those that inherit the descriptor: two would tear each other's runs.

    Raises:
        ConfigError: another process holds it, be it a run whose parent was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another hvdtrain reproduce, or a run that one left behind, still works here",
                remedy="wait for it, or choose another --dir",
            ) from None
        yield file.fileno()


def run_all(runs: Sequence[Run], *, jobs: int, lock: int, code: str) -> None:
    """Bring all runs to their end, as many at a time as have `jobs` processes together.

    Args:
        lock: descriptor that each run inherits.
        code: commit or version, noted beside each run.

    Raises:
        HvdtrainError: a run failed; the others have been ended.
    """
    waiting = deque(run for run in runs if not run.finished)
    going: dict[subprocess.Popen[bytes], Run] = {}
    done = len(runs) - len(waiting)
    with _terminable(), _ending(going), Display(len(runs), done) as display:
        while waiting or going:
            while waiting and (not going or _ranks(going) + waiting[0].ranks <= jobs):
                run = waiting.popleft()
                going[_start(run, lock, code)] = run
            time.sleep(LOOK_SECONDS)
            for process in [process for process in going if process.poll() is not None]:
                run = going.pop(process)
                if process.returncode != 0 or not run.finished:
                    raise HvdtrainError(_failure(run, process.returncode))
                display.advance()


def _ranks(going: dict[subprocess.Popen[bytes], Run]) -> int:
    return sum(run.ranks for run in going.values())


def _start(run: Run, lock: int, code: str) -> subprocess.Popen[bytes]:
    for folder in (run.folder, run.log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "code.txt").open("a") as file:
        file.write(f"{code}\n")
    command = run.command()
    with run.log.open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=launch.variables(threads=1),
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends them in order
        )


def _failure(run: Run, code: int) -> str:
    last = run.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    command = shlex.join(run.command())
    said = f"run {run.name} ended with exit code {code}; {run.log} ends with"
    return "\n".join([said, *last, f"its command: {command}"])


@contextmanager
def _ending(going: dict[subprocess.Popen[bytes], Run]) -> Iterator[None]:
    """End what still runs when the block is left."""
    try:
        yield
    finally:
        for process in going:
            process.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for process, run in going.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            logger.info("%s is interrupted; the same command goes on with it", run.name)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C: by default it would leave the runs behind."""
    before: Any = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
