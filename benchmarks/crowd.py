"""A run of k workers with one worker: `python crowd.py K RANK FOLDER` prints what that one rank had to do, as JSON.

The program is the real one from its launch to its summary, on the digits in FOLDER/digits. Horovod alone is not there:
each collective gives this rank what k workers like it would have given, objects pickled and unpickled as Horovod does
it, and is counted. A rank other than 0 hears what rank 0 said, from the tape that rank 0's run has left in FOLDER.
"""

import contextlib
import http.client
import io
import json
import os
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import torch

from hvdtrain import cli
from hvdtrain.config.load import from_file
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.topology import Topology
from hvdtrain.metrics import targets
from hvdtrain.train import checkpoints
from hvdtrain.train import run as runs

REPORT_EVERY, REPORTS = 20, 3
REPORTS_AN_HOUR = 720  # of 20 steps of 0.25 s
PICTURES = ("digits/.jpg", "digits/.JPEG")
CORES = 128  # of a host, where the launcher leaves all of them to each worker
OPTIONS = [
    *("train", "--config", "demo", "--data.decoder", "pillow", "--max_steps", str(REPORT_EVERY * REPORTS)),
    *("--epochs", "100000", "--optim.base_lr", "1e-9", "--run.report_every", str(REPORT_EVERY), "--run.name", "run"),
    *("--evaluation.every_epochs", "100000", "--checkpoint.every_epochs", "100000", "--distributed.watchdog_seconds"),
    *("0", "--metrics.baseline_steps", "2", "--resume", "auto", "--evaluation.at_end", "false", "--data.threads", "1"),
]


class Crowd(SoloComm):
    """One of `size` workers, the others of which do as it does."""

    def __init__(self, topology: Topology, *, activity: Activity, tape: dict[str, list[Any]]) -> None:
        self.rank, self.size, self._tape = topology.rank, topology.size, tape
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()  # that this rank received
        self.began = time.process_time()
        self.start: dict[str, float] = {}
        """What there was until the first step."""
        self.endpoint = ""
        self.seen: dict[str, Any] = {}
        """What there is to be seen from outside, at the last report."""

    def _count(self, name: str, size: int) -> None:
        self.calls[name] += 1
        self.bytes[name] += size

    def start_sum(self, tensor: torch.Tensor, name: str) -> None:
        self._count(name, tensor.nbytes)
        weights = [rank % 64 + 1 for rank in range(self.size)] if name == "preflight: sum" else [1] * self.size
        tensor.mul_(sum(weights) / weights[self.rank])

    def sum(self, values: list[float], name: str) -> list[float]:
        self._count(name, 8 * len(values))
        return [value * self.size for value in values]

    def broadcast_(self, tensor: torch.Tensor, name: str) -> None:
        self._count(name, tensor.nbytes)
        if self.rank == 0:
            self._tape.setdefault(name, []).append(tensor.detach().clone())
        else:
            with torch.no_grad():
                tensor.copy_(self._tape[name].pop(0))

    def broadcast_object(self, value: Any, name: str) -> Any:
        if self.rank == 0:
            self._tape.setdefault(name, []).append(value)
        said = value if self.rank == 0 else self._tape[name].pop(0)
        self._count(name, len(pickle.dumps(said)))
        return said

    def gather(self, value: Any, name: str) -> list[Any]:
        if name == "workers":
            self.endpoint = value["metrics"]
        pickled = pickle.dumps(value)
        self._count(name, self.size * len(pickled))
        return [pickle.loads(pickled) for _ in range(self.size)]

    def table(self, row: Any, name: str) -> Any:
        self._count(name, self.size * row.nbytes)
        if self.calls["report"] == REPORTS:
            self.seen = self._look()
        return np.repeat(row[None], self.size, axis=0)

    def meet(self, name: str) -> None:
        if name == "first step":
            index = sum(size for each, size in self.bytes.items() if each.startswith("index of"))
            sums = sum(size for each, size in self.bytes.items() if each.startswith(("preflight: sum", "gradients")))
            self.start = {
                "start: collectives": self.calls.total(),
                "start: kB received": self.bytes.total() - index - sums,
                "start: CPU seconds": time.process_time() - self.began,
                "index: kB received": index,
            }
        self._count(name, 4)

    def _look(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.endpoint)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        return {
            "Prometheus: page bytes": len(page),
            "Prometheus: series": sum(not line.startswith("#") for line in page.splitlines()),
            "threads": threading.active_count(),
            "files open": len(list(Path("/proc/self/fd").iterdir())),
            "resident MB": psutil.Process().memory_info().rss,
        }


def main() -> None:
    size, rank, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    print(json.dumps(figures(size, rank, folder)))


def figures(size: int, rank: int, folder: Path) -> dict[str, float]:
    """What a run costs this rank, by the names of growth.py, in bytes."""
    torch.set_num_threads(1)
    tape_file = folder / "tape"
    tape: dict[str, list[Any]] = pickle.loads(tape_file.read_bytes()) if rank else {}
    crowds: list[Crowd] = []

    def join(topology: Topology, *, activity: Activity) -> Crowd:
        crowds.append(Crowd(topology, activity=activity, tape=tape))
        return crowds[0]

    opened = opens_within(folder)
    place = ["--data.dir", f"{folder}/digits", "--run.dir", f"{folder}/runs", "--metrics.baselines_dir", f"{folder}/b"]
    with patched(size, rank, join), patch.object(targets, "text", wraps=targets.text) as written:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as screen:
            code = cli.main([*OPTIONS, *place])
        assert code == 0, screen.getvalue()
        targeted = len(targets.text(*written.call_args.args)) if rank == 0 else 0  # it is gone at the end of the run
    if rank == 0:
        tape_file.write_bytes(pickle.dumps(tape))
    return told(crowds[0], folder, rank, len(screen.getvalue()), targeted, opened)


@contextlib.contextmanager
def patched(size: int, rank: int, join: Callable[..., Crowd]) -> Iterator[None]:
    """Within, this process is one of `size` workers of hosts with CORES cores, and `join` is how Horovod starts."""
    ranks = {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": size, "OMPI_COMM_WORLD_LOCAL_RANK": 0}
    variables = {name: str(value) for name, value in {**ranks, "OMP_NUM_THREADS": 1}.items()}
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, variables))
        stack.enter_context(patch.object(os, "sched_getaffinity", lambda _: set(range(CORES))))
        stack.enter_context(patch.object(runs, "HorovodComm", join))
        stack.enter_context(patch.object(cli, "_leave", lambda code: None))
        yield


def opens_within(folder: Path) -> Counter[str]:
    """Counts from now on which files of `folder` are opened to be read: once and for all, an audit hook stays."""
    counts: Counter[str] = Counter()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            path, mode = os.fspath(arguments[0]), arguments[1]
            if isinstance(path, str) and path.startswith(str(folder)) and (mode or "r").startswith("r"):
                counts[Path(path).relative_to(folder).parts[0] + "/" + Path(path).suffix] += 1

    sys.addaudithook(hook)
    return counts


def told(crowd: Crowd, folder: Path, rank: int, screen: int, targeted: int, opened: Counter[str]) -> dict[str, float]:
    run = folder / "runs" / "run"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    reports = [event for event in events if event["event"] == "report"]
    found = {
        **crowd.start,
        "report: kB received": crowd.bytes["report"] / crowd.calls["report"],
        "log: bytes of the whole run": (run / "logs" / f"rank-{rank}.log").stat().st_size,
        "screen: bytes of the whole run": screen,
        "files of data and run read": sum(n for kind, n in opened.items() if kind not in PICTURES),
        **crowd.seen,
    }
    if rank == 0:
        with contextlib.redirect_stdout(io.StringIO()) as words, contextlib.redirect_stderr(io.StringIO()):
            checkpoints.find(from_file(run / "config.yaml"), crowd)  # as the next start would
            cli.main(["report", str(run)])
        found |= {
            "environment.json: kB": (run / "environment.json").stat().st_size,
            "targets file: kB": targeted,
            "events: MB an hour": REPORTS_AN_HOUR * sum(len(json.dumps(each)) + 1 for each in reports) / len(reports),
            "resume: kB received": crowd.bytes["checkpoint"],
            "hvdtrain report: characters": len(words.getvalue()),
        }
    return found


if __name__ == "__main__":
    main()
