"""Contenders that live in processes of their own: all started and warmed up, and stopped while another has its turn.

The bench's own process listens on loopback; each process that it starts connects, and does what it
is told until the connection ends.
"""

import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Literal

from hvdtrain.distributed import allocator, launch
from hvdtrain.errors import HvdtrainError

ADDRESS, KEY = "HVDTRAIN_BENCH_PORT", "HVDTRAIN_BENCH_KEY"
START_SECONDS = 180.0
END_SECONDS = 30.0
WARM_UP = 3  # repetitions of each contender

Run = Callable[[int], Any]
"""Does so many repetitions and returns when the device has done them; what it returns is told to the bench."""


class Group:
    """The processes of one contender, or of several that share them; stopped unless it is their turn."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        listener: "Listening",
        *,
        workers: int,
        how: Literal["mpirun", "torch", "alone"],
        threads: int,
        cores: Sequence[Sequence[int]] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            module: what each process runs, `python -m`; it calls `serve`.
            how: under mpirun; with the variables by which torch.distributed finds its peers; or not knowing of each
                other.
            threads: of each worker.
            cores: those that each worker may run on; None: all.

        Raises:
            HvdtrainError: they have ended before they were warm.
        """
        environment = {**allocator.wanted(os.environ), **launch.variables(threads), **listener.variables}
        environment |= {"MKL_NUM_THREADS": str(threads), **(variables or {})}
        # In a job of several nodes mpirun would start some of them elsewhere; they all listen and connect on this one.
        environment = {name: value for name, value in environment.items() if not name.startswith("SLURM_")}
        command = [sys.executable, "-m", module, *arguments]
        self._own_groups = how != "mpirun"
        if how == "mpirun":
            mpirun = [launch.program("mpirun"), "--oversubscribe", "--bind-to", "none", "-np", str(workers)]
            self._started = [subprocess.Popen([*mpirun, *command], env=environment)]
        else:
            peers = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(workers)}
            own = [environment | (peers | {"RANK": str(rank)} if how == "torch" else {}) for rank in range(workers)]
            # A process group each, to stop with a contender what it has started.
            self._started = [subprocess.Popen(command, env=each, start_new_session=True) for each in own]
        try:
            self._workers = [listener.accept(self._started) for _ in range(workers)]
            introduced = [connection.recv() for connection in self._workers]
            self._pids: list[int] = [pid for pid, _ in introduced]
            for pid, mine in zip(self._pids, cores or (), strict=False):
                bind(pid, mine)
            for name in introduced[0][1]:
                self._turn(name, WARM_UP)
        except (EOFError, OSError, HvdtrainError) as error:
            self._kill()
            raise HvdtrainError(f"{module} {' '.join(arguments)} ended before its first turn") from error

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def seconds(self, name: str, repetitions: int) -> float:
        """From the first one's begin to the last one's end.

        Raises:
            HvdtrainError: a process has ended.
        """
        answers = self._turn(name, repetitions)
        return float(max(end for _, end, _ in answers) - min(begin for begin, _, _ in answers))

    def told(self, name: str, repetitions: int) -> list[Any]:
        """What the contender returned, of each process.

        Raises:
            HvdtrainError: a process has ended.
        """
        return [value for _, _, value in self._turn(name, repetitions)]

    def _turn(self, name: str, repetitions: int) -> list[tuple[float, float, Any]]:
        try:
            self.go_on()
            for connection in self._workers:
                connection.send((name, repetitions))
            answers = [connection.recv() for connection in self._workers]
            self.stop()
        except (EOFError, OSError) as error:
            raise HvdtrainError(f"{name}: one of its processes ended in its turn; above is what it printed") from error
        return answers

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Without a turn: what runs beside the turns of others."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            self.go_on()
        for connection in self._workers:
            connection.close()
        try:
            for process in self._started:
                process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()

    def _kill(self) -> None:
        for process in self._started:
            _kill(process.pid, signal.SIGKILL, group=self._own_groups)
            process.wait()

    def _signal(self, number: signal.Signals) -> None:
        gone = [pid for pid in self._pids if not _kill(pid, number, group=self._own_groups)]
        if gone:
            raise ProcessLookupError(f"process {gone[0]} has ended")


class Listening:
    """Where the processes of all groups connect to."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._listener = Listener(("127.0.0.1", 0), authkey=self._key)

    @property
    def variables(self) -> dict[str, str]:
        return {ADDRESS: str(self._listener.address[1]), KEY: self._key.hex()}

    def accept(self, started: Sequence["subprocess.Popen[bytes]"]) -> Connection:
        """
        Raises:
            HvdtrainError: one of the processes has ended, or START_SECONDS have passed.
        """
        socket = self._listener._listener._socket  # type: ignore[attr-defined]  # it has no way to wait for a while
        socket.settimeout(0.2)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                return self._listener.accept()
            except TimeoutError:
                if any(process.poll() is not None for process in started):
                    break
        raise HvdtrainError("no process of it connects")

    def close(self) -> None:
        self._listener.close()


@contextmanager
def listening() -> Iterator[Listening]:
    found = Listening()
    try:
        yield found
    finally:
        found.close()


class Looping(ABC):
    """A contender whose loop goes on from turn to turn: its first call does not return, and `over` ends each turn."""

    over: Callable[[], int]
    """Returns the repetitions of the next turn, when it comes."""

    @abstractmethod
    def __call__(self, repetitions: int) -> None: ...


def serve(contenders: Mapping[str, Callable[[], Run]]) -> None:
    """In a process of a group: make the contenders and run whichever is told, until the connection ends."""
    port, key = int(os.environ[ADDRESS]), bytes.fromhex(os.environ[KEY])
    connection = Client(("127.0.0.1", port), authkey=key)
    begin = 0.0
    runs: dict[str, Run] = {}

    def turn() -> tuple[str, int]:
        nonlocal begin
        name, repetitions = connection.recv()
        begin = time.perf_counter()  # one clock for all processes of a machine
        return name, repetitions

    def run(name: str, repetitions: int) -> None:
        value = runs[name](repetitions)
        connection.send((begin, time.perf_counter(), value))

    def over(own: str) -> int:
        connection.send((begin, time.perf_counter(), None))
        try:
            while (next_turn := turn())[0] != own:
                run(*next_turn)
        except EOFError:
            raise SystemExit from None
        return next_turn[1]

    connection.send((os.getpid(), list(contenders)))
    for name, make in contenders.items():
        runs[name] = make()
        if isinstance(each := runs[name], Looping):
            each.over = partial(over, name)
    while True:
        try:
            next_turn = turn()
        except EOFError:
            return
        run(*next_turn)


def _kill(pid: int, number: signal.Signals, *, group: bool) -> bool:
    """Whether it is there."""
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return False
    return True


def bind(pid: int, cores: Sequence[int]) -> None:
    """All threads of a process, and those that they start."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), set(cores))


def free_port() -> int:
    """On loopback; free a moment ago."""
    with Listener(("127.0.0.1", 0)) as listener:
        return int(listener.address[1])
