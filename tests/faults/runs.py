"""Short runs of one worker that begin at once (ready.py), and what has to be so when one has ended."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.errors import CheckpointError

from ..multiproc.conftest import SMALL
from ..multiproc.test_failures import messages
from .ready import SECONDS


@dataclass(frozen=True)
class Ended:
    folder: Path
    code: int
    output: str
    seconds: float

    def weights(self) -> dict[str, torch.Tensor]:
        return weights(self.folder)

    def failure(self) -> str:
        """Its one message."""
        assert self.code not in (0, 1), f"exit code {self.code}:\n{self.output}"
        return one_message(self.output)


class Ready:
    """Starts one run after the other."""

    def __init__(self, process: "subprocess.Popen[str]", data: Path, place: Path) -> None:
        self._process, self._output = process, place / "output"
        self._always = [*SMALL.split(), f"--data.dir={data}", "--data.threads=1", f"--metrics.baselines_dir={place}"]

    def run(
        self,
        folder: Path,
        *options: str,
        full: tuple[str, int, Path] | None = None,
        meanwhile: Callable[[Path], None] = lambda folder: None,
    ) -> Ended:
        """A run to its end.

        Args:
            full: see ready.py.
            meanwhile: is called with the run's directory when the run has been started.
        """
        assert self._process.stdin
        assert self._process.stdout
        place = [f"--run.dir={folder.parent}", f"--run.name={folder.name}"]
        asked = {
            "arguments": ["train", *self._always, *place, *options],
            "output": str(self._output),
            "full": full and [*full[:2], str(full[2])],
        }
        began = time.monotonic()
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        try:
            meanwhile(folder)
        finally:
            code = int(self._process.stdout.readline())
        seconds = time.monotonic() - began
        assert seconds < SECONDS
        return Ended(folder, code, self._output.read_text(), seconds)


@contextmanager
def ready(data: Path, place: Path) -> Iterator[Ready]:
    command = [sys.executable, "-m", "tests.faults.ready"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Ready(process, data, place)


def one_message(output: str) -> str:
    assert "Traceback" not in output, output
    assert "this is a bug" not in output, output
    told = messages(output)
    assert len(told) == 1, output
    return told[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of the last checkpoint; all that are there are whole."""
    for path in store.paths(folder / "checkpoints"):
        form.read(path)
    checkpoint = store.latest(folder / "checkpoints").checkpoint
    assert checkpoint is not None
    found: dict[str, torch.Tensor] = form.tensors(checkpoint.data, torch.device("cpu"))["model"]
    return found


def only_whole_checkpoints(folder: Path) -> None:
    """Right after a fault: each is whole, or put aside and named so, or a temporary one."""
    there = folder / "checkpoints"
    for path in there.iterdir() if there.is_dir() else ():
        if not path.name.startswith((store.ASIDE, ".")):
            try:
                form.read(path)
            except CheckpointError as error:
                raise AssertionError(f"left behind: {error}") from None


def equal(mine: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == reference.keys()
    different = [name for name in mine if not torch.equal(mine[name], reference[name])]
    assert not different, f"{len(different)} of {len(mine)} tensors differ: {different[:5]}"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
