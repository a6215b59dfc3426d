"""Images per second of input pipelines for ImageNet training: `python benchmarks/input.py --help`.

All read the same files, with the operating system's cache warm, and hand over batches of normalised float32 pictures in
CPU memory: random crop of 8 to 100 % of the area, resized to 224 x 224, mirrored or not. What sets them apart:

                              reads        decodes          filter of the resize      memory  works in
    ours                      files        window           triangle, antialiased     NHWC    threads
    ours-packed               tar shards   window           triangle, antialiased     NHWC    threads
    ours-packed-400           tar shards of images shrunk to a longer side of at most 400: as ours-packed
    torchvision               files        whole (Pillow)   triangle, antialiased     NCHW    processes
    webdataset                tar shards   whole (Pillow)   triangle, antialiased     NCHW    processes
    dali-plain                files        window           triangle, antialiased     NHWC    threads
    dali-plain-no-antialias   files        window           triangle, as it is        NHWC    threads
    ffcv, ffcv-97             its own      whole            area (OpenCV)             NHWC    threads
    limit                     memory       window           triangle, antialiased     NHWC    threads of C

`limit` is what the cores can do: libjpeg-turbo and a vectorised resampler with nothing around them (limit.c), on the
windows of ours. FFCV reads JPEGs that it encoded itself: of quality 90, which its authors use for ImageNet and which
has half the bytes of the photographs here, or of quality 97, which has about as many. Decoding costs by the byte.

Each runs alone, and in company of a training process, ResNet-18 on as many threads as there are cores. Those threads
and a contender's share the cores as Linux pleases: so the table also has the images that are trained on meanwhile.
All are started and warmed up first; then they run turn by turn, the others stopped by SIGSTOP, and at each turn the
batches that were ready before it are thrown away. What counts is the ratio within a round.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import peers

RATIOS = (  # numerator, denominator, alone or in company, goal
    ("ours", "torchvision", "alone", 1.6),
    ("ours", "torchvision", "company", 2.5),
    ("ours", "webdataset", "alone", None),
    ("ours", "dali-plain", "alone", 1.0),
    ("ours", "dali-plain", "company", 1.0),
    ("ours", "dali-plain-no-antialias", "alone", None),
    ("ours", "ffcv", "alone", None),
    ("ours", "ffcv-97", "alone", None),
    ("ours", "limit", "alone", 0.85),
    ("ours-packed", "ours", "alone", None),
    ("ours-packed-400", "ours", "alone", 2.0),
)
PACKAGES = ("torch", "torchvision", "pillow", "webdataset", "nvidia-dali-cuda120", "nvidia-dali-cuda130")
IN_PEERS_PYTHON = ("ffcv", "ffcv-97")
Figures = dict[str, float]  # alone, company: images/s; training: images/s of the training beside it


class Missing(RuntimeError):
    """A contender whose process ended; the last line that it wrote."""


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="input-benchmark-") as scratch, ExitStack() as stack:
        data = options.data or photographs(Path(scratch), options)
        names = options.contenders or [name for name in peers.CONTENDERS if given(name, options)]
        contenders, missing = started(names, data, Path(scratch), options, stack)
        training = stack.enter_context(running(peers.TRAINING, data, Path(scratch), options))
        rounds = []
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            order = contenders if number % 2 == 0 else contenders[::-1]  # nobody always comes first
            figures = {contender.name: turn(contender, training, options) for contender in order}
            figures[peers.TRAINING] = {"alone": training_alone(training)}
            rounds.append(figures)
    report(options, rounds, missing)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare input pipelines, turn by turn.")
    parser.add_argument("--data", type=Path, help="folder with train/<class>/* and val/<class>/*; else photos.py's")
    parser.add_argument(
        "--images", type=int, default=1000, help="photographs that are written where there is no --data"
    )
    parser.add_argument("--packed", type=Path, help="the same images as tar shards, for ours-packed")
    parser.add_argument("--packed-400", type=Path, help="shrunk to a longer side of at most 400, for ours-packed-400")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter of an environment that has FFCV")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image", type=int, default=224, help="pixels")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="threads, or worker processes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--batches",
        type=int,
        default=16,
        help="timed batches in a turn; a multiple of the cores, for a worker of a DataLoader makes whole batches",
    )
    parser.add_argument("--discard", type=int, help="batches before those; default: 2 per core, and 2")
    parser.add_argument("--contenders", nargs="+", choices=tuple(peers.CONTENDERS), help="fewer than all")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if options.discard is None:
        options.discard = 2 * options.cores + 2  # what two batches ahead per DataLoader worker come to, and some
    return options


def given(name: str, options: argparse.Namespace) -> bool:
    folders = {"ours-packed": options.packed, "ours-packed-400": options.packed_400}
    return folders.get(name, True) is not None


def photographs(scratch: Path, options: argparse.Namespace) -> Path:
    from hvdtrain.bench import photos

    folder = scratch / "photos"
    photos.write(folder, images=options.images)
    photos.write(folder, images=10, part="val")
    return folder


class Contender:
    """A process, with those that it starts, stopped while others run."""

    def __init__(self, name: str, data: Path, scratch: Path, options: argparse.Namespace) -> None:
        self.name = name
        python = options.peers_python if name in IN_PEERS_PYTHON else sys.executable
        own = scratch / name
        own.mkdir()
        setting = {
            "data": str(data),
            "packed": str(options.packed or ""),
            "packed_400": str(options.packed_400 or ""),
            "scratch": str(own),
            **{key: getattr(options, key) for key in ("batch", "image", "cores")},
        }
        self._said = own / "stderr"
        self._connection, theirs = Pipe()
        file = theirs.fileno()
        with self._said.open("w") as said:
            try:
                self._process = subprocess.Popen(
                    [python, peers.__file__, name, str(file), json.dumps(setting)],
                    pass_fds=(file,),
                    stdout=said,
                    stderr=said,
                    start_new_session=True,  # a process group, to stop its workers with it
                )
            except OSError as error:
                raise Missing(str(error)) from None
        theirs.close()

    def warm(self) -> None:
        self._received()
        self.stop()

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def ask(self, question: tuple[float, float]) -> Any:
        self._connection.send(question)
        return self._received()

    def end(self) -> None:
        self._connection.close()
        with suppress(ProcessLookupError):
            self.go_on()
        try:
            self._process.wait(timeout=10)  # it ends the processes that it started
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _received(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.wait()
            lines = self._said.read_text().strip().splitlines()
            raise Missing(lines[-1] if lines else f"ended with {self._process.returncode}") from None


@contextmanager
def running(name: str, data: Path, scratch: Path, options: argparse.Namespace) -> Iterator[Contender]:
    contender = Contender(name, data, scratch, options)
    try:
        contender.warm()
        yield contender
    finally:
        contender.end()


def started(
    names: list[str], data: Path, scratch: Path, options: argparse.Namespace, stack: ExitStack
) -> tuple[list[Contender], dict[str, str]]:
    """Those that can run, and why the others cannot."""
    contenders, missing = [], {}
    for name in names:
        try:
            contenders.append(stack.enter_context(running(name, data, scratch, options)))
        except Missing as error:
            missing[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    return contenders, missing


def turn(contender: Contender, training: Contender, options: argparse.Namespace) -> Figures:
    figures: Figures = {}
    contender.go_on()
    for mode in ("alone", "company"):
        if mode == "company":
            resume(training)
        begin, end = contender.ask((options.discard, options.batches))
        figures[mode] = options.batches * options.batch / (end - begin)
    figures["training"] = training.ask((begin, end)) / (end - begin)
    training.stop()
    contender.stop()
    return figures


def resume(training: Contender) -> None:
    """Returns when it has ended the step in which it was stopped."""
    training.go_on()
    now = time.perf_counter()
    training.ask((now, now))


def training_alone(training: Contender) -> float:
    """Images per second of the company when it has the machine for itself."""
    resume(training)
    begin = time.perf_counter()
    time.sleep(3.0)
    end = time.perf_counter()
    images = training.ask((begin, end))
    training.stop()
    return images / (end - begin)


def report(options: argparse.Namespace, rounds: list[dict[str, Figures]], missing: dict[str, str]) -> None:
    print(f"\nbatches of {options.batch}, {options.image} pixels, {options.cores} cores")
    print(f"{options.rounds} rounds of {options.batches} batches; images/s, median (min-max)\n")
    print(f"{'contender':25}{'alone':>20}{'in company':>20}{'training meanwhile':>22}")
    for name in [name for name in peers.CONTENDERS if name in rounds[0]] + [peers.TRAINING]:
        modes = ("company", "training") if name != peers.TRAINING else ()
        line = "".join(f"{spread([each[name][mode] for each in rounds]):>21}" for mode in ("alone", *modes))
        print(f"{name:24}{line}")
    for name, why in missing.items():
        print(f"{name:25}not measured: {why}")
    print(f"\n{'ratio':36}{'median':>8}{'min':>8}{'max':>8}{'goal':>8}")
    for top, bottom, mode, goal in RATIOS:
        if {top, bottom} <= set(rounds[0]):
            values = [figures[top][mode] / figures[bottom][mode] for figures in rounds]
            median = statistics.median(values)
            judged = f"{goal:>8.2f}  {'holds' if median >= goal else 'missed'}" if goal else ""
            name = f"{top} / {bottom}" + (", company" if mode == "company" else "")
            print(f"{name:36}{median:>8.3f}{min(values):>8.3f}{max(values):>8.3f}{judged}")
    if options.json:
        told = {key: str(value) for key, value in vars(options).items() if key != "json"}
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), **versions()}
        record = {"date": time.strftime("%Y-%m-%d"), "options": told, "machine": machine, "rounds": rounds}
        options.json.write_text(json.dumps(record | {"missing": missing}, indent=2) + "\n")


def spread(values: list[float]) -> str:
    median, low, high = (
        f"{value:.0f}" if value > 100 else f"{value:.1f}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low}-{high})"


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
