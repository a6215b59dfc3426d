"""Contenders that live in processes of their own: all started and warmed up, and stopped while another has its turn.

The bench's own process listens on loopback; each process that it starts connects, says that it is warm, and then does
what it is told until the connection ends.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Literal

from hvdtrain.distributed import launch
from hvdtrain.errors import HvdtrainError

ADDRESS, KEY = "HVDTRAIN_BENCH_PORT", "HVDTRAIN_BENCH_KEY"
START_SECONDS = 180.0
END_SECONDS = 30.0
WARM_UP = 3  # turns of one repetition each

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
        environment = {**launch.variables(threads), **listener.variables, **(variables or {})}
        environment |= {"MKL_NUM_THREADS": str(threads), "OMPI_MCA_mpi_yield_when_idle": "1"}
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
            self._pids: list[int] = [connection.recv() for connection in self._workers]
            for pid, mine in zip(self._pids, cores or (), strict=False):
                bind(pid, mine)
            for connection in self._workers:
                connection.send("warm up")
            for connection in self._workers:
                connection.recv()
        except (EOFError, OSError, HvdtrainError) as error:
            self._kill()
            raise HvdtrainError(f"{module} {' '.join(arguments)} ended before its first turn") from error
        self.stop()

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


def serve(contenders: Mapping[str, Callable[[], Run]]) -> None:
    """In a process of a group: make the contenders, warm them up, and run whichever is told, to the end."""
    port, key = int(os.environ[ADDRESS]), bytes.fromhex(os.environ[KEY])
    connection = Client(("127.0.0.1", port), authkey=key)
    connection.send(os.getpid())
    connection.recv()
    runs = {name: make() for name, make in contenders.items()}
    for run in runs.values():
        run(WARM_UP)
    connection.send("warm")
    while True:
        try:
            name, repetitions = connection.recv()
        except EOFError:
            return
        begin = time.perf_counter()  # one clock for all processes of a machine
        value = runs[name](repetitions)
        connection.send((begin, time.perf_counter(), value))


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
