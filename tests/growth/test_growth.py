"""By which law things grow with the number of workers, told from counts of bytes, messages, files and threads."""

import doctest
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import growth
import messages
import pytest
import watched

from hvdtrain.data import demo

SIZES = (16, 64, 256)
STEEPEST = 1.05  # exponent of what is O(k); addresses and ranks become a digit longer now and then
PROGRAMS = Path(growth.__file__).parent
PATH = os.pathsep.join([str(PROGRAMS), *sys.path])

Figures = dict[int, dict[str, float]]

# Of each worker more, at any rank: bytes.
MOST = {
    "start: kB received": 20_000,  # 16,384 of them are the tensor that tells the ring
    "report: kB received": 8 * (2 + 4 * 20),  # loss and images; four times of each of 20 steps
}
# And at rank 0.
MOST_AT_RANK_0 = {
    **MOST,
    "environment.json: kB": 300,
    "targets file: kB": 150,
    "events: MB an hour": 720 * 3 * 10,  # three times of each report, of up to ten characters
}
CONSTANT = ("start: collectives", "index: kB received", "Prometheus: series", "resume: kB received")


# Several runs in one process, for most of the time goes into importing torch.
RUNS = """
import json, pathlib, sys
import crowd
for size, rank, folder in json.loads(sys.argv[1]):
    print(json.dumps(crowd.figures(size, rank, pathlib.Path(folder))))
"""


def started(*command: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PATH}
    )


def results(process: "subprocess.Popen[str]") -> list[dict[str, float]]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures]:
    """Of rank 0 in runs of SIZES, of the last rank in one of them, and of the watch."""
    folders = {size: tmp_path_factory.mktemp(f"crowd-{size}") for size in SIZES}
    for folder in folders.values():
        demo.write(folder / "digits")
    few, middle, many = ((size, 0, str(folders[size])) for size in SIZES)
    both = started("-c", RUNS, json.dumps([few, many]))
    ends = started("-c", RUNS, json.dumps([middle, (64, 63, str(folders[64]))]))
    (watch,) = results(started(PROGRAMS / "watched.py", 64, 0.5))
    (least, most), (between, last) = results(both), results(ends)
    return {"rank 0": {16: least, 64: between, 256: most}, "last": {64: last}, "watch": {64: watch}}


def test_the_laws_are_told_from_values() -> None:
    assert doctest.testmod(growth).failed == 0
    assert growth.law([3.0 * k for k in (8, 64, 256, 1024)], 0) == "O(k)"
    assert growth.law([k * k + 1e6 for k in (8, 64, 256, 1024)], 0) == "O(k^2.0)"
    assert growth.law([1000.0, 1001, 1000, 1002], 5) == "O(1)"


@pytest.mark.parametrize("name", MOST_AT_RANK_0)
def test_what_rank_0_takes_for_each_worker_is_the_same_of_the_last_as_of_the_first(
    name: str, measured: dict[str, Figures]
) -> None:
    values = [measured["rank 0"][size][name] for size in SIZES]
    assert growth.exponent(values) < STEEPEST
    assert (values[-1] - values[0]) / (SIZES[-1] - SIZES[0]) <= MOST_AT_RANK_0[name]


@pytest.mark.parametrize("name", CONSTANT)
def test_what_is_no_affair_of_the_number_of_workers_does_not_grow(name: str, measured: dict[str, Figures]) -> None:
    few, *others = [measured["rank 0"][size][name] for size in SIZES]
    assert others == pytest.approx([few, few], rel=1e-4)  # images_seen has some digits more


@pytest.mark.parametrize(
    ("name", "most"), [("log: bytes of the whole run", 2000), ("screen: bytes of the whole run", 1500)]
)
def test_rank_0_says_as_much_whatever_there_are(name: str, most: int, measured: dict[str, Figures]) -> None:
    assert all(measured["rank 0"][size][name] < most for size in SIZES)


def test_threads_and_files_do_not_grow(measured: dict[str, Figures]) -> None:
    for name in ("threads", "files open"):
        values = [measured["rank 0"][size][name] for size in SIZES]
        assert max(values) <= min(values) + 4, name


def test_another_rank_reads_no_file_that_all_would_read_and_says_nothing(measured: dict[str, Figures]) -> None:
    last, first = measured["last"][64], measured["rank 0"][64]
    assert last["log: bytes of the whole run"] == last["screen: bytes of the whole run"] == 0
    assert last["files of data and run read"] <= 1
    assert last["Prometheus: series"] < 20 < first["Prometheus: series"] < 150
    for name in MOST:
        assert last[name] == pytest.approx(first[name], rel=0.01)


def test_the_watch_takes_a_connection_and_a_line_a_second_of_each_worker(measured: dict[str, Figures]) -> None:
    told = measured["watch"][64]
    assert (told["watch: connections"], told["watch: files open"], told["watch: threads"]) == (63, 66, 1)
    assert 0 < told["watch: MB of memory"] < 10_000 * 64


def test_the_watch_of_twice_as_many_hears_twice_as_much() -> None:
    """Counted from the first byte: of each worker its greeting and its first beats."""
    heard = {}
    for size in (32, 128):
        with watched.watching(size) as (led, watchdog):
            hub = watched.hub_of(watchdog)
            assert led.joined == len(hub.connected) == size - 1
            heard[size] = watched.traffic(hub)
            led.end()
            watched.until_all_have_gone(hub)
            assert hub.connected == set()
    for name in ("watch: kB received a second", "watch: kB sent a second"):
        assert heard[128][name] / 127 < 500
        assert heard[128][name] / 127 < 2 * heard[32][name] / 31 + 200


def test_no_message_lists_all_workers() -> None:
    few, many = messages.figures(64), messages.figures(1024)
    told = {name: length for name, length in many.items() if name.endswith("characters")}
    assert len(told) == 6
    assert max(told.values()) < 1500
    assert all(length < few[name] + 40 for name, length in told.items())


def test_of_a_thousand_that_fail_at_once_a_few_speak_before_the_launcher_ends_them() -> None:
    (name,) = (name for name in messages.figures(8) if name.startswith("all fail at once"))
    assert messages.figures(1024)[name] == messages.figures(8)[name] < 8


def test_the_table_has_all_that_is_measured(
    measured: dict[str, Figures], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sizes = (8, 64, 256, 1024)
    figures: dict[str, float] = {}
    for who, found in (("rank 0", measured["rank 0"][64]), ("rank k - 1", measured["last"][64])):
        figures |= {f"{who}: {name}": value for name, value in found.items()}
    figures |= measured["watch"][64] | messages.figures(64)
    assert {quantity.name for quantity in growth.quantities()} == figures.keys()

    growing = {name: [value * size / 64 for size in sizes] for name, value in figures.items()}
    options: Any = Namespace(sizes=sizes, seconds=1.0, json=tmp_path / "growth.json")
    growth.report(options, growing)
    lines = capsys.readouterr().out.splitlines()[1:]
    rows = json.loads(options.json.read_text())["rows"]
    assert len(lines) == len(rows) == len(figures)
    assert {row["law"] for row in rows if row["values"][0] > 0 and "noise" not in row} <= {"O(k)", "O(1)"}
    assert all(line.endswith("holds") == row["holds"] for line, row in zip(lines, rows, strict=True))
