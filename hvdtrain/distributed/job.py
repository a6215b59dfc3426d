"""A launcher as a child process: its process group, its signals, its terminal and its end.

The group is its own, so that what is sent to this process's group, as `timeout` does, reaches the launcher once. At a
prompt the launcher gets the terminal, as a job gets it from a shell: Ctrl-C, Ctrl-Z and what is typed reach it.
In a pipeline or a script the terminal stays with those around, and its signals are handed on.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

from hvdtrain.distributed import launch
from hvdtrain.errors import EnvironmentFault

HANDED_ON = frozenset(
    {
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP, signal.SIGCONT),
    }
)
TERMINAL_STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
TERM_SECONDS = 5.0  # from SIGTERM to SIGKILL
KILL_SECONDS = 5.0  # for what was killed to go, which a process that waits for a lost file system does not
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class Job:
    """The launcher runs; see `started`."""

    def __init__(self, process: "subprocess.Popen[bytes]", handed_on: frozenset[signal.Signals]) -> None:
        self._process, self._handed_on = process, handed_on

    @property
    def pid(self) -> int:
        """Also the number of its process group."""
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        """Wait for a signal, `seconds` at most, and hand it on. Whether the job goes on after a stop."""
        received = signal.sigtimedwait({*self._handed_on, signal.SIGCHLD}, seconds)
        self._reap()
        if self.exit_code is not None:
            return False
        continued = received is not None and received.si_signo == signal.SIGCONT
        if continued:
            _lend_terminal(self.pid)
        if received and received.si_signo in self._handed_on:
            # The terminal, which is the kernel, means a whole group; a sender means a process.
            send = os.killpg if received.si_code > 0 else os.kill
            with suppress(PermissionError):  # it has become another user's
                send(self.pid, received.si_signo)
        if self._stopped_at_terminal():
            self._stop_too()
            continued = True
        return continued

    @property
    def exit_code(self) -> int | None:
        """None: it runs. 128 + the number of the signal that killed it."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def end(self) -> list[int]:
        """End it and all its descendants, wherever they went; those that even SIGKILL does not end."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_SECONDS)
        deadline = time.monotonic() + KILL_SECONDS
        while (left := _descendants()) and time.monotonic() < deadline:
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.05)
            self._reap()
            self._process.poll()
        return [process.pid for process in left]

    def return_terminal(self) -> None:
        """To this process's group; in the background it is the shell's, and stays so."""
        with suppress(OSError):  # no terminal, or it has gone
            if os.tcgetpgrp(0) == self.pid:
                _take_terminal()

    def _reap(self) -> None:
        """Let go of descendants that came to this process when their parent ended."""
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid == self.pid:
                    break
                os.waitpid(ended.si_pid, 0)

    def _stopped_at_terminal(self) -> bool:
        """Since the last call; not by SIGSTOP, which is somebody's decision about the launcher alone."""
        try:
            stopped = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:  # it has just ended
            return False
        return stopped is not None and stopped.si_status in TERMINAL_STOPS

    def _stop_too(self) -> None:
        """As the launcher was stopped at the terminal, so that the shell shows its prompt; then go on with it."""
        self.return_terminal()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        os.killpg(os.getpgrp(), signal.SIGTSTP)  # the kernel drops it where no shell could continue us
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        _lend_terminal(self.pid)
        os.killpg(self.pid, signal.SIGCONT)


@contextmanager
def started(command: Sequence[str]) -> Iterator[Job]:
    """Start a launcher; on leaving, signals and terminal are as before.

    For the main thread of a process that has no other children. Within the block only `Job.wait` takes signals.

    Raises:
        EnvironmentFault: there is no such command, or it cannot be started.
    """
    command = _found(command)
    # What is ignored, as SIGHUP under nohup, the launcher ignores too.
    handed_on = frozenset(number for number in HANDED_ON if signal.getsignal(number) != signal.SIG_IGN)
    # SIGTTOU, because it would stop who takes the terminal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*handed_on, signal.SIGCHLD, signal.SIGTTOU})
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # descendants stay descendants when their parent ends
    us, at_prompt = os.getpid(), _at_prompt()

    def in_child() -> None:
        os.setpgid(0, 0)
        if at_prompt:
            _take_terminal()
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # if we are killed
        if os.getppid() != us:
            os.kill(os.getpid(), signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        try:
            process = subprocess.Popen(command, preexec_fn=in_child)
        except OSError as error:
            if at_prompt:
                _take_terminal()  # from the child that came no further
            name = command[0]
            raise EnvironmentFault(f"{name} cannot be started: {error.strerror}", remedy=f"file {name}") from None
        job = Job(process, handed_on)
        yield job
        job.return_terminal()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _found(command: Sequence[str]) -> list[str]:
    """Called as given where PATH has it: an absolute path means --prefix to mpirun."""
    name, *arguments = command
    if shutil.which(name):
        return [name, *arguments]
    if "/" in name:
        raise EnvironmentFault(f"{name}: expected a program that can be executed", remedy=f"ls -l {name}")
    return [launch.program(name), *arguments]


def _descendants() -> list[psutil.Process]:
    """Of this process, those that have ended but not been waited for left out."""
    return [process for process in psutil.Process().children(recursive=True) if alive(process)]


def alive(process: psutil.Process) -> bool:
    """Also when it is stopped; not when only its exit code is left."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _at_prompt() -> bool:
    """Whether this process has the terminal, and no other needs it, as in a pipeline or a script."""
    try:
        return os.getpid() == os.getpgrp() == os.tcgetpgrp(0) and os.isatty(1)
    except OSError:
        return False


def _lend_terminal(group: int) -> None:
    if _at_prompt():
        os.tcsetpgrp(0, group)


def _take_terminal() -> None:
    with suppress(OSError):  # it has gone
        os.tcsetpgrp(0, os.getpgrp())
