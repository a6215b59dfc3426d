"""What watching a run costs: `python benchmarks/metrics_cost.py --help`.

    step-8, step-256   milliseconds of CPU that rank 0 of so many workers spends in each step on telling how it goes:
                       clock marks, meters, all metrics, and its share of a report every 20 steps, in which the table of
                       all workers is taken apart, held against a baseline and written to events.jsonl
    page               milliseconds to write the page of all of rank 0's series
    scrape, scrape-tls milliseconds of a whole scrape of it, from connecting to the last byte

The step itself is empty, the workers are copies of one, and what they would send each other is not counted. Time of a
thread is counted where nothing else is going on, and wall time for a scrape, whose client is in the same process. They
take turns, so that a change in the machine's mood meets all of them.
"""

import argparse
import http.client
import itertools
import json
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client import generate_latest

from hvdtrain import provenance
from hvdtrain.data.loader import Batch
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.events import EventLog
from hvdtrain.metrics.efficiency import Baseline
from hvdtrain.metrics.exporter import Exporter
from hvdtrain.metrics.health import health
from hvdtrain.metrics.registry import Metrics
from hvdtrain.metrics.tls import Tls
from hvdtrain.train.clock import HostTime, StepClock
from hvdtrain.train.meters import Meters
from hvdtrain.train.micro_batches import MicroBatches
from hvdtrain.train.record import Record, Traffic
from hvdtrain.train.state import TrainState

GOALS = {"step-8": 0.25, "step-256": 0.25, "scrape": 10.0, "scrape-tls": None, "page": None}  # milliseconds
REPORT_EVERY = 20  # steps, the default of run.report_every
CERTIFICATES = Path(__file__).parents[1] / "tests" / "metrics" / "certificates"
ALONE = Baseline(
    source="measured",
    workers=1,
    pixels=1,
    measured_at=0.0,
    origin="nowhere",
    step_seconds=1e-5,
    standard_error=1e-7,
    samples=10,
    parts={"input": 2e-6, "compute": 5e-6, "straggler": 0.0, "communication": 0.0, "rest": 3e-6},
)


def main() -> None:
    options = arguments()
    with ExitStack() as stack:
        contenders = started(stack, options)
        rounds = []
        for number in range(options.rounds):
            order = list(GOALS) if number % 2 == 0 else list(GOALS)[::-1]  # nobody always comes first
            rounds.append({name: contenders[name]() for name in order})
    report(options, rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what watching a run costs.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400, help="in a round; a multiple of 20, the steps of a report")
    parser.add_argument("--scrapes", type=int, default=10, help="in a round")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def started(stack: ExitStack, options: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """What measures one round of each, in milliseconds, warmed up."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="metrics-cost-")))
    runs = {f"step-{workers}": Run(workers, scratch / f"{workers}.jsonl") for workers in (8, 256)}
    for run in runs.values():
        stack.callback(run.close)
    contenders: dict[str, Callable[[], float]] = {
        name: lambda run=run: run.milliseconds_per_step(options.steps) for name, run in runs.items()
    }
    full = runs["step-8"].everything_measured()
    contenders["page"] = lambda: milliseconds(time.thread_time, lambda: generate_latest(full.registry), options.scrapes)
    keys = Tls(str(CERTIFICATES / "server.pem"), str(CERTIFICATES / "server.key"))
    for name, tls in (("scrape", None), ("scrape-tls", keys)):
        well = partial(health, Activity(), 600)
        exporter = stack.enter_context(Exporter(full.registry, well, address="127.0.0.1", port=19470, tls=tls))
        contenders[name] = lambda port=exporter.port, tls=tls: milliseconds(
            time.perf_counter, lambda: scrape(port, tls is not None), options.scrapes
        )
    for measure in contenders.values():
        measure()
    return contenders


class Crowd(SoloComm):
    """Workers that are all like this one."""

    def __init__(self, size: int) -> None:
        self.size = size

    def table(self, row: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.repeat(row[None], self.size, axis=0)


class Run:
    """Rank 0 of a run, without the run."""

    def __init__(self, workers: int, events: Path) -> None:
        self.comm, self.clock = Crowd(workers), StepClock(HostTime())
        self.meters = Meters(self.clock, baseline=ALONE, warming_up=0)
        self.metrics = Metrics(rank=0, run_info={"run": "r"}, worker_info={"host": "h"})
        self.record = Record(
            self.metrics,
            Activity(),
            rank=0,
            images_per_epoch=1000,
            traffic=Traffic.of([25 * 2**20] * 4, workers),
            events=EventLog(events),
        )
        model, scaler = torch.nn.Linear(1, 1), torch.amp.GradScaler("cpu")
        self.state = TrainState(model, torch.optim.SGD(model.parameters()), scaler)
        self.state.scaled(torch.zeros(()))  # from now on the scale is a tensor
        self.loss = torch.ones(())
        self.batches = itertools.repeat(Batch(torch.zeros(32, 3, 1, 1), torch.zeros(32), images_seen=32))

    def close(self) -> None:
        self.record.ended(self.state, seconds=1.0, images_per_second=1.0)

    def milliseconds_per_step(self, steps: int) -> float:
        self.clock.restart()
        return milliseconds(time.thread_time, self._step, steps)

    def everything_measured(self) -> Metrics:
        """The metrics with all their series present."""
        self.milliseconds_per_step(REPORT_EVERY)
        return self.metrics

    def _step(self) -> None:
        """The loop's lines that tell how a step went, in their order."""
        with self.clock.spent_on("compute"):
            pass
        step = MicroBatches(self.batches, 1, self.clock)
        for _ in step:
            with self.clock.spent_on("compute"):
                pass
        self.clock.ready()
        self.clock.summed()
        with self.clock.spent_on("compute"):
            pass
        self.state.images_seen, self.state.step = step.images_seen, self.state.step + 1
        self.meters.add(self.loss, step)
        self.record.step(self.state, step, lr=0.1)
        if self.state.step % REPORT_EVERY == 0:
            self.record.report(self.state, self.meters.report(self.comm), lr=0.1)


def milliseconds(clock: Callable[[], float], call: Callable[[], Any], times: int) -> float:
    """Of one call, the mean of so many."""
    began = clock()
    for _ in range(times):
        call()
    return 1000 * (clock() - began) / times


def scrape(port: int, tls: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    if tls:
        context = ssl.create_default_context(cafile=str(CERTIFICATES / "authority.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)
    connection.request("GET", "/metrics")
    assert b"hvdtrain_scaling_loss_ratio" in connection.getresponse().read()
    connection.close()


def report(options: argparse.Namespace, rounds: list[dict[str, float]]) -> None:
    print(f"{options.rounds} rounds of {options.steps} steps and {options.scrapes} scrapes; milliseconds\n")
    print(f"{'':12}{'median':>9}{'min':>9}{'max':>9}{'goal':>9}")
    for name, goal in GOALS.items():
        values = [figures[name] for figures in rounds]
        median = statistics.median(values)
        judged = f"{goal:>9.2f}  {'holds' if median < goal else 'missed'}" if goal else ""
        print(f"{name:12}{median:>9.3f}{min(values):>9.3f}{max(values):>9.3f}{judged}")
    if options.json:
        told = {key: value for key, value in vars(options).items() if key != "json"}
        machine = {"commit": provenance.revision(), **provenance.hardware()}
        record = {"date": time.strftime("%Y-%m-%d"), "options": told, "machine": machine, "rounds": rounds}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
