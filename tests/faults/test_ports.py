"""Metrics ports that somebody has already: the next free one is taken, and Prometheus is told so."""

import json
import random
import socket
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from hvdtrain.metrics import targets
from hvdtrain.metrics.exporter import TRIES

from .runs import Ready, equal, ready, until
from .tally import Times, Trials

STEPS = 40
RUN = (f"--max_steps={STEPS}", "--data.batch_size=4", "--evaluation.at_end=false", "--checkpoint.every_epochs=0.05")


@pytest.fixture(scope="module")
def runs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    with ready(digits, tmp_path_factory.mktemp("ready")) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(runs: Ready, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    ended = runs.run(tmp_path_factory.mktemp("undisturbed") / "run", *RUN)
    assert ended.code == 0, ended.output
    return ended.weights()


@contextmanager
def taken(first: int, offsets: Iterable[int]) -> Iterator[None]:
    with ExitStack() as sockets:
        for offset in offsets:
            listening = sockets.enter_context(socket.socket())
            listening.bind(("127.0.0.1", first + offset))
            listening.listen()
        yield


def free_ports(seed: int) -> int:
    """The first of as many free ones in a row as a run tries."""
    chance = random.Random(seed)
    while True:
        first = chance.randrange(20_000, 32_000)
        try:
            with taken(first, range(TRIES)):
                return first
        except OSError:
            continue


def served_at(folder: Path) -> int:
    """The port that Prometheus is told, once the metrics are there; they are this run's."""
    file = targets.file(folder)
    until(file.exists)
    (group,) = json.loads(file.read_text())
    (endpoint,) = group["targets"]
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=10) as answer:
        assert f'run="{folder.name}"' in answer.read().decode()
    return int(endpoint.rpartition(":")[2])


def test_some_taken(
    runs: Ready, undisturbed: dict[str, torch.Tensor], trials: Trials, times: Times, tmp_path: Path
) -> None:
    """From none to all but the last."""
    with trials("some metrics ports taken") as tally:
        for seed in range(times(6, 12)):
            with tally.one(f"seed {seed}"):
                chance, first = random.Random(seed), free_ports(seed)
                free = [0, TRIES - 1, *(chance.randrange(TRIES) for _ in range(seed))][seed]
                above = chance.sample(range(free + 1, TRIES), chance.randrange(TRIES - free))
                seen: list[int] = []
                with taken(first, [*range(free), *above]):
                    ended = runs.run(
                        tmp_path / f"run-{seed}",
                        *RUN,
                        f"--metrics.port={first}",
                        meanwhile=lambda folder, seen=seen: seen.append(served_at(folder)),
                    )
                assert ended.code == 0, ended.output
                assert seen == [first + free]
                equal(ended.weights(), undisturbed)
                assert not targets.file(ended.folder).exists()


def test_all_taken(
    runs: Ready, undisturbed: dict[str, torch.Tensor], trials: Trials, times: Times, tmp_path: Path
) -> None:
    with trials("all metrics ports taken, then resume with free ones") as tally:
        for seed in range(times(2, 4)):
            with tally.one(f"seed {seed}"):
                first, folder = free_ports(seed), tmp_path / f"run-{seed}"
                with taken(first, range(TRIES)):
                    ended = runs.run(folder, *RUN, f"--metrics.port={first}")
                assert ended.code == 3
                wanted = f"ports {first} to {first + TRIES - 1} are all taken → set metrics.port"
                assert ended.failure() == f"metrics.port = {first}: {wanted}"
                resumed = runs.run(folder, *RUN, f"--metrics.port={first}", "--resume=auto")
                assert resumed.code == 0, resumed.output
                equal(resumed.weights(), undisturbed)
