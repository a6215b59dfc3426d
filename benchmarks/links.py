"""The planner against training over links of known speed: `python benchmarks/links.py --help`. Needs root.

Hosts are network namespaces of this machine, one worker on each, whose links are shaped by tc. For each number of
workers first that many train side by side without knowing of each other, which gives the time of computing with the
cores shared as they will be. From it, the link's nominal speed and the planner's stored constants follows a prediction,
which is written down; only then the workers train together over the shaped links.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from hvdtrain.bench import trials
from hvdtrain.config.schema import Config
from hvdtrain.plan import capacity
from hvdtrain.plan.ask import Ask
from hvdtrain.plan.setting import setting
from hvdtrain.provenance import hardware, revision

HOSTS = Path(__file__).parents[1] / "tests" / "cluster" / "hosts"
HVDTRAIN = str(Path(sys.executable).with_name("hvdtrain"))
WINDOW = 5  # steps of a report: over a slow link each takes seconds
OVER_TCP = ["--mca", "btl_tcp_if_include", "eth0", "--mca", "oob_tcp_if_include", "eth0"]


def main() -> None:
    parser = argparse.ArgumentParser(description="The planner's prediction against training over shaped links.")
    parser.add_argument("--workers", default="2,4", help="default: %(default)s")
    parser.add_argument("--megabits", default="10000,1000,200", help="of each host's link; default: %(default)s")
    parser.add_argument("--model", default="resnet18", help="default: %(default)s")
    parser.add_argument("--pixels", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=16, help="of a worker; default: %(default)s")
    parser.add_argument("--steps", type=int, default=60, help="timed ones of each run; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of everything; default: %(default)s")
    parser.add_argument("--predictions", type=Path, help="write them there, before anything is measured")
    parser.add_argument("--json", type=Path, help="write predictions and measurements there")
    options = parser.parse_args()
    numbers = [int(text) for text in options.workers.split(",")]
    speeds = [int(text) for text in options.megabits.split(",")]
    with tempfile.TemporaryDirectory(prefix="hvdtrain-links-") as name, hosts(Path(name), max(numbers)):
        folder = Path(name)
        alone: dict[int, list[float]] = {k: [] for k in numbers}
        for number in range(options.rounds):
            for k in numbers:
                alone[k].append(side_by_side(options, folder / f"alone-{number}", k))
        predictions = [predict(options, k, statistics.median(alone[k]), speed) for k in numbers for speed in speeds]
        if options.predictions:
            write(options.predictions, {"kind": "plan-links-predictions", "predictions": predictions})
        for row in predictions:
            row["measured_seconds"] = []
        for number in range(options.rounds):
            for row in predictions:
                with shaped(row["workers"], row["megabits"]):
                    seconds = together(options, folder / f"together-{number}", row["workers"])
                row["measured_seconds"].append(seconds)
    print(table(options, predictions))
    if options.json:
        about = {
            "hardware": hardware(),
            "code": revision(),
            "date": datetime.now(timezone.utc).isoformat("T", "seconds"),
        }
        command = shlex.join(["python", *sys.argv])
        write(options.json, {"kind": "plan-links", **about, "command": command, "points": predictions})


def predict(options: argparse.Namespace, workers: int, compute: float, megabits: int) -> dict[str, Any]:
    ask = Ask(
        model=options.model,
        gpu="cpu",
        link=f"{megabits / 1000:g}gbit",
        transport="tcp",
        gpus_per_node=1,
        batch=options.batch,
        compute_seconds=compute,
    )
    found = capacity.predict(setting(ask), workers)
    return {
        "workers": workers,
        "megabits": megabits,
        "alone_seconds": compute,
        "predicted_seconds": found.step.seconds,
        "predicted_efficiency": found.weak,
        "predicted_low": found.low,
        "predicted_high": found.high,
    }


def side_by_side(options: argparse.Namespace, folder: Path, workers: int) -> float:
    """Step seconds of so many that train at once, each by itself: the mean of them."""
    names = [f"alone-{workers}-{i}" for i in range(1, workers + 1)]
    files = [settings(options, folder, name) for name in names]
    commands = [
        [str(HOSTS), "on", f"h{i}", HVDTRAIN, "train", "--config", str(file)] for i, file in enumerate(files, 1)
    ]
    started = [
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    for command, process in zip(commands, started, strict=True):
        output, _ = process.communicate()
        check(command, process.returncode, output)
    return statistics.fmean(step_seconds(folder / name) for name in names)


def together(options: argparse.Namespace, folder: Path, workers: int) -> float:
    """Step seconds of so many that sum their gradients over the links as they are."""
    name = f"together-{workers}"
    shutil.rmtree(folder / name, ignore_errors=True)
    file = settings(options, folder, name)
    mpirun = shutil.which("mpirun")
    assert mpirun, "no mpirun on PATH: hvdtrain doctor"
    exported = [word for variable in variables() for word in ("-x", variable)]
    place = ["-np", str(workers), "-H", ",".join(f"h{i}:1" for i in range(1, workers + 1))]
    launcher = [str(HOSTS), "on", "h1", mpirun, *place, "--bind-to", "none", *OVER_TCP, *exported]
    command = [*launcher, HVDTRAIN, "train", "--config", str(file)]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    check(command, ended.returncode, ended.stdout + ended.stderr)
    return step_seconds(folder / name)


def settings(options: argparse.Namespace, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    chosen = trials.only_steps(Config(), folder / name, threads=1, steps=options.steps)
    chosen["run"]["report_every"] = WINDOW
    chosen["max_steps"] = (trials.WARM_UP + -(-options.steps // WINDOW)) * WINDOW
    chosen["model"]["name"] = options.model
    chosen["data"] |= {"source": "synthetic", "image_size": options.pixels, "batch_size": options.batch, "threads": 1}
    chosen["distributed"] |= {"threads": 1, "preflight": False}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(chosen))
    return file


def step_seconds(run: Path) -> float:
    """Mean of a run's steps, without those of its first reports."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    reports = [event for event in events if event["event"] == "report"][trials.WARM_UP :]
    return sum(each["steps"] * each["step_seconds"] for each in reports) / sum(each["steps"] for each in reports)


def variables() -> dict[str, str]:
    """What the workers are told."""
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMP_NUM_THREADS": "1"}
    return root | {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


def environment() -> dict[str, str]:
    return {**os.environ, **variables()}


def check(command: Sequence[str], code: int, output: str) -> None:
    if code:
        last = "\n".join(output.splitlines()[-12:])
        sys.exit(f"{shlex.join(command)} ended with exit code {code}:\n{last}")


@contextmanager
def hosts(folder: Path, count: int) -> Iterator[None]:
    try:
        subprocess.run([HOSTS, "up", folder / "hosts", str(count)], check=True)
        for i in range(2, count + 1):
            deadline = time.monotonic() + 60
            reach = [str(HOSTS), "on", "h1", "ssh", f"h{i}", "true"]
            while subprocess.run(reach, capture_output=True, check=False).returncode:
                assert time.monotonic() < deadline, f"h{i} lets nobody in by ssh"
                time.sleep(0.1)
        yield
    finally:
        subprocess.run([HOSTS, "down", folder / "hosts"], check=True)


@contextmanager
def shaped(count: int, megabits: int) -> Iterator[None]:
    """Each host sends so many Mbit/s. The bucket holds what passes in 4 ms, of which the kernel's clock is sure."""
    burst = max(32_000, megabits * 1_000_000 // 8 // 250)
    rate = ["tbf", "rate", f"{megabits}mbit", "burst", f"{burst}", "latency", "400ms"]
    tc = [["ip", "netns", "exec", f"h{i}", "tc", "qdisc"] for i in range(1, count + 1)]
    try:
        for each in tc:
            subprocess.run([*each, "replace", "dev", "eth0", "root", *rate], check=True)
        yield
    finally:
        for each in tc:
            subprocess.run([*each, "del", "dev", "eth0", "root"], check=False)


def table(options: argparse.Namespace, points: Sequence[dict[str, Any]]) -> str:
    shape = f"{options.model}, {options.pixels} pixels, n = {options.batch}; {options.rounds} rounds"
    head = (
        f"{'k':>3}{'link':>12}{'alone':>10}{'predicted':>12}{'measured':>11}{'E pred.':>10}{'E meas.':>10}{'error':>8}"
    )
    lines = [shape, "", head]
    for row in points:
        measured = statistics.median(row["measured_seconds"])
        efficiency = row["alone_seconds"] / measured
        error = row["predicted_efficiency"] - efficiency
        lines.append(
            f"{row['workers']:>3}{row['megabits']:>7} Mbit{1000 * row['alone_seconds']:>7.0f} ms"
            f"{1000 * row['predicted_seconds']:>9.0f} ms{1000 * measured:>8.0f} ms"
            f"{100 * row['predicted_efficiency']:>8.1f} %{100 * efficiency:>8.1f} %{100 * error:>+7.1f}"
        )
    return "\n".join(lines)


def write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
