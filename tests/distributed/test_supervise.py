"""Real launchers: that those that outlive their workers end, and that the others run as without us."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from hvdtrain.distributed.job import TERM_SECONDS, alive
from hvdtrain.distributed.supervise import waits_for_hosts_seconds
from hvdtrain.distributed.topology import has_rank

from ..multiproc.conftest import HVDTRAIN, root_variables
from ..test_house import HEAVY

GRACE = 2.0
SLACK_SECONDS = 20.0  # of a busy machine
MARK = "HVDTRAIN_TEST_OF"
DEAF = "trap '' TERM INT HUP"


@dataclass(frozen=True)
class Launched:
    process: subprocess.Popen[str]
    folder: Path

    def started(self, name: str) -> psutil.Process:
        """The process that wrote its number to the file `name`."""
        file = self.folder / name
        _until(lambda: file.exists() and file.read_text().endswith("\n"), f"{name} to start")
        return psutil.Process(int(file.read_text()))

    def wait(self, given: str = "") -> tuple[int, str, str]:
        """Exit code, output and errors."""
        out, err = self.process.communicate(given, timeout=60)
        return self.process.returncode, out, err


Launch = Callable[..., Launched]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SLACK_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {SLACK_SECONDS} s for {what}"
        time.sleep(0.02)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Without a launcher's variables. What was started in it and still runs at the end is ended."""
    ours = {name: value for name, value in os.environ.items() if not has_rank({name: value}, outside={})}
    path = f"{Path(sys.executable).parent}{os.pathsep}{ours['PATH']}"
    yield {**ours, **root_variables(), MARK: str(tmp_path), "HERE": str(tmp_path), "PATH": path}
    for process in marked(tmp_path):
        with suppress(psutil.Error):
            process.kill()


def marked(folder: Path) -> Iterator[psutil.Process]:
    """What was started in the test's environment and still runs."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder) and alive(process):
                yield process


@pytest.fixture
def launch(environment: dict[str, str], tmp_path: Path) -> Iterator[Launch]:
    """launch(bash program) starts it under `hvdtrain launch`; launch(words…) that command."""

    jobs: list[Launched] = []

    def start(*command: str, grace: float = GRACE) -> Launched:
        if len(command) == 1:
            (tmp_path / "launcher").write_text(command[0])
            command = ("bash", str(tmp_path / "launcher"))
        process = subprocess.Popen(
            [HVDTRAIN, "launch", "--grace", str(grace), *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        jobs.append(Launched(process, tmp_path))
        return jobs[-1]

    yield start
    for job in jobs:
        job.process.kill()
        job.process.communicate(timeout=60)


def worker(rank: int, seconds: float, name: str = "worker") -> str:
    """A line of bash that starts one in the background."""
    return f'OMPI_COMM_WORLD_RANK={rank} bash -c "echo \\$\\$ > $HERE/{name}-{rank}; exec sleep {seconds}" &'


def sleeper(name: str) -> str:
    """A command of bash that runs for ever and tells its number."""
    return f"bash -c 'echo $$ > $HERE/{name}; exec sleep 1000'"


def test_a_launcher_that_outlives_its_workers_is_ended_with_all_it_started(launch: Launch) -> None:
    job = launch(
        f"""{DEAF}
        echo $$ > $HERE/launcher-itself
        {worker(0, 0)}
        {worker(1, 3)}
        setsid {sleeper("daemon")} &
        (setsid {sleeper("orphan")} &)
        {sleeper("waiting")}"""
    )
    rest = [job.started(name) for name in ("launcher-itself", "daemon", "orphan", "waiting")]
    last = job.started("worker-1")
    _until(lambda: not alive(last), "the last worker to end")
    began = time.monotonic()
    code, _, err = job.wait()
    seconds = time.monotonic() - began
    print(f"ended {seconds:.1f} s after the last worker")
    assert code == 6
    (line,) = [line for line in err.splitlines() if line.startswith("hvdtrain: ")]
    assert line.startswith(
        f"hvdtrain: bash (process {rest[0].pid}) is still there 2 s after the last of its workers on "
    )
    assert [process for process in rest if alive(process)] == []
    assert GRACE + TERM_SECONDS - 1 < seconds < GRACE + TERM_SECONDS + SLACK_SECONDS


def test_a_launcher_that_ends_at_sigterm_is_not_killed(launch: Launch) -> None:
    job = launch(f"trap 'echo in order; exit 3' TERM\n{worker(0, 1)}\nwait\nwhile sleep 0.1; do :; done")
    last = job.started("worker-0")
    _until(lambda: not alive(last), "the last worker to end")
    began = time.monotonic()
    code, out, _ = job.wait()
    assert (code, out) == (6, "in order\n")
    assert time.monotonic() - began < GRACE + TERM_SECONDS


def test_workers_may_come_late_and_end_one_after_another(launch: Launch) -> None:
    """No worker for longer than the grace at first; then there is always one, and the launcher ends soon after."""
    job = launch(
        f"""sleep 3
        {worker(0, 1.5)}
        {worker(1, 3)}
        {worker(2, 4.5)}
        wait
        sleep 1; echo done; exit 5""",
        grace=2.5,
    )
    assert job.wait() == (5, "done\n", "")


def test_a_launcher_without_workers_here_is_waited_for(launch: Launch) -> None:
    assert launch("sleep 3; exit 4", grace=0.5).wait() == (4, "", "")


def test_a_worker_that_is_stopped_is_still_there(launch: Launch) -> None:
    job = launch(f"{worker(0, 1)}\nwait", grace=0.5)
    process = job.started("worker-0")
    process.suspend()
    time.sleep(3)
    assert job.process.poll() is None
    process.resume()
    assert job.wait() == (0, "", "")


def test_a_rank_that_was_there_before_the_launcher_is_none(launch: Launch, environment: dict[str, str]) -> None:
    environment["PMIX_RANK"] = "0"
    assert launch("sleep 3", grace=0.5).wait() == (0, "", "")


def elastic(launch: Launch, folder: Path, program: str, *options: str, grace: float) -> Launched:
    """A launcher that is called as an elastic horovodrun is."""
    (folder / "horovodrun").write_text(program)
    return launch("bash", str(folder / "horovodrun"), "-np", "2", "--min-np", "1", *options, "true", grace=grace)


def test_an_elastic_launcher_may_wait_for_hosts_to_come_back(launch: Launch, tmp_path: Path) -> None:
    program = f"{worker(0, 1)}\nwait\nsleep 4\n{worker(1, 1)}\nwait\nexit 5"
    assert elastic(launch, tmp_path, program, "--elastic-timeout", "30", grace=0.5).wait() == (5, "", "")


def test_an_elastic_launcher_that_waits_for_longer_than_it_should_is_ended(launch: Launch, tmp_path: Path) -> None:
    job = elastic(launch, tmp_path, f"{worker(0, 1)}\nwait\nsleep 1000", "--elastic-timeout=3", grace=1.5)
    last = job.started("worker-0")
    _until(lambda: not alive(last), "the worker to end")
    began = time.monotonic()
    code, _, err = job.wait()
    assert code == 6
    assert "is still there 4.5 s after the last of its workers on " in err
    assert time.monotonic() - began > 3.5


def test_workers_on_other_hosts_are_an_elastic_launchers_too(launch: Launch, tmp_path: Path) -> None:
    """It goes on with those that its ssh hold; mpirun's ssh hold daemons."""
    shutil.copy(shutil.which("sleep") or "", tmp_path / "ssh")
    program = f"(bash -c '$HERE/ssh 7; true') &\n{worker(0, 1)}\nwait\nexit 4"
    assert elastic(launch, tmp_path, program, "--elastic-timeout=1", grace=1).wait() == (4, "", "")
    assert launch(program, grace=2).wait()[0] == 6


@pytest.mark.parametrize(
    ("words", "variable", "seconds"),
    [
        ("mpirun -np 2 hvdtrain train", "90", None),
        ("horovodrun -np 2 -H a,b hvdtrain train --elastic", "90", None),
        ("horovodrun --min-np 1 hvdtrain", "", 600),
        ("horovodrun --min-num-proc=1 hvdtrain", "90", 90),
        ("horovodrun --host-discovery-script hosts hvdtrain", "soon", 600),
        ("horovodrun --host-discovery-script=hosts --elastic-timeout 60 hvdtrain", "90", 60),
        ("horovodrun --elastic-timeout=60 --min-np 1 hvdtrain", "90", 60),
        ("horovodrun --elastic-timeout 0 --min-np 1 hvdtrain", "90", 90),
        ("horovodrun --min-np 1 --elastic-timeout", "", 600),
    ],
)
def test_how_long_a_launcher_waits_for_hosts(words: str, variable: str, seconds: int | None) -> None:
    assert waits_for_hosts_seconds(words.split(), {"HOROVOD_ELASTIC_TIMEOUT": variable}) == seconds


def test_mpirun_runs_as_without_us(launch: Launch) -> None:
    mpirun = shutil.which("mpirun")
    assert mpirun, "no mpirun on PATH: hvdtrain doctor"
    program = "if [ $OMPI_COMM_WORLD_RANK = 0 ]; then cat; echo told >&2; fi; sleep 1; exit 7"
    job = launch(mpirun, "--oversubscribe", "-np", "2", "bash", "-c", program, grace=30)  # it takes up to 3 s to abort
    code, out, err = job.wait("given\n")
    assert code == 7
    assert out.startswith("given\n")
    assert "told\n" in err
    assert "hvdtrain: " not in err


def test_nothing_heavy_is_imported(environment: dict[str, str]) -> None:
    program = f"""
import sys
from hvdtrain.cli import main
code = main(["launch", "true"])
print("loaded", sorted(name for name in {HEAVY!r} if name in sys.modules), "code", code)
"""
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "loaded [] code 0\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_a_signal_is_handed_on_once_and_the_launcher_decides(launch: Launch, name: str) -> None:
    counts = f"""trap 'echo {name}; n=$((n + 1))' {name}
    echo $$ > $HERE/ready
    until [ -e $HERE/enough ]; do sleep 0.05; done
    exit $((40 + n))"""
    job = launch(counts)
    job.started("ready")
    job.process.send_signal(signal.Signals[name])
    time.sleep(1)
    assert job.process.poll() is None
    (job.folder / "enough").touch()
    assert job.wait() == (41, f"{name}\n", "")


def test_a_launcher_killed_by_a_signal_is_told_as_shells_tell_it(launch: Launch) -> None:
    job = launch("echo $$ > $HERE/ready; exec sleep 1000")
    job.started("ready").kill()
    assert job.wait() == (137, "", "")


def test_if_we_are_killed_the_launcher_is_told_to_end(launch: Launch) -> None:
    job = launch("trap 'exit 1' TERM\necho $$ > $HERE/ready\nwhile sleep 0.1; do :; done")
    launcher = job.started("ready")
    job.process.kill()
    _until(lambda: not alive(launcher), "the launcher to end")


@dataclass(frozen=True)
class Prompt:
    """An interactive shell in a terminal."""

    terminal: int
    seen: list[str]

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def expect(self, text: str) -> None:
        """Wait until the terminal shows it, and forget what it showed."""
        os.set_blocking(self.terminal, False)

        def shown() -> bool:
            with suppress(BlockingIOError):
                self.seen.append(os.read(self.terminal, 65536).decode())
            return text in "".join(self.seen)

        try:
            _until(shown, f"{text!r} in {''.join(self.seen)!r}")
        finally:
            print("".join(self.seen))
        self.seen.clear()


@pytest.fixture
def prompt(environment: dict[str, str], tmp_path: Path) -> Iterator[Prompt]:
    (tmp_path / "bashrc").write_text("PS1='ready> '\nbind 'set enable-bracketed-paste off'\n")
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("bash", ["bash", "--rcfile", str(tmp_path / "bashrc"), "-i"], {**environment, "TERM": "dumb"})
    prompt = Prompt(terminal, [])
    prompt.expect("ready> ")
    yield prompt
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)


def test_ctrl_c_ends_the_job_and_the_terminal_comes_back(prompt: Prompt, tmp_path: Path) -> None:
    prompt.type("hvdtrain launch mpirun --oversubscribe -np 2 bash -c 'echo u\"\"p; sleep 1000'\n")
    prompt.expect("up")
    prompt.type("\x03")
    prompt.expect("ready> ")
    prompt.type("echo code $(($? > 0)) over\n")
    prompt.expect("code 1 over")
    assert {process.name() for process in marked(tmp_path)} == {"bash"}  # the prompt


def test_what_is_typed_reaches_the_launcher(prompt: Prompt) -> None:
    prompt.type("hvdtrain launch mpirun -np 1 bash -c 'echo u\"\"p; read word; echo got-$word'\n")
    prompt.expect("up")
    prompt.type("that\n")
    prompt.expect("got-that")
    prompt.expect("ready> ")


def test_ctrl_z_stops_the_job_and_fg_goes_on_with_it(prompt: Prompt) -> None:
    prompt.type("hvdtrain launch bash -c 'echo u\"\"p; read word; echo got-$word'\n")
    prompt.expect("up")
    prompt.type("\x1a")
    prompt.expect("ready> ")
    prompt.type("jobs; fg\n")
    prompt.expect("Stopped")
    prompt.type("that\n")
    prompt.expect("got-that")
    prompt.expect("ready> ")


def test_in_a_pipeline_ctrl_c_and_ctrl_z_reach_all(prompt: Prompt) -> None:
    prompt.type("hvdtrain launch bash -c 'echo u\"\"p; sleep 1000' | cat\n")
    prompt.expect("up")
    prompt.type("\x1a")
    prompt.expect("ready> ")
    prompt.type("fg\n")
    prompt.expect("| cat")
    prompt.type("\x03")
    prompt.expect("ready> ")
    prompt.type("echo left ${PIPESTATUS[0]} over\n")
    prompt.expect("left 130 over")
