"""Whatever lies in a run directory is read, or it is said what is wrong with it."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from hvdtrain.errors import ConfigError
from hvdtrain.metrics import targets
from hvdtrain.report import text as words
from hvdtrain.report.read import read
from hvdtrain.report.records import State
from hvdtrain.report.study import study
from hvdtrain.train import lock
from tests.report.made import BEGAN, Made, records, touch, write

SMALL = Made(workers=2, windows=6)


def append(folder: Path, text: str) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write(text)


def test_a_finished_run(runs: Path) -> None:
    run = read(write(runs / "r50", Made(workers=8, windows=6, quarantined=2)))
    assert (run.name, run.state, run.step, run.epoch) == ("r50", State.FINISHED, 120, 3.0)
    assert (len(run.windows), len(run.evaluations), len(run.checkpoints), len(run.quarantined)) == (6, 3, 3, 2)
    assert run.end is not None
    assert run.baseline is not None
    assert run.baseline.ranks is not None
    assert len(run.baseline.ranks) == 8
    last = run.windows[-1]
    assert last.parts is not None
    assert sum(last.parts.values()) == pytest.approx(last.step_seconds)
    assert last.ranks is not None
    assert {key: len(values) for key, values in last.ranks.items()} == {"lag": 8, "input": 8, "compute": 8}
    assert run.environment.host(7) == "node000"
    assert run.config is not None
    assert run.config.model.name == "resnet50"


@pytest.mark.parametrize(
    ("preflight", "speed"),
    [
        ({"bytes": 51200000, "seconds": 0.04, "bus_gigabytes_per_second": 1.28}, 1.28e9),
        (None, None),
        ({}, None),
        ("fast", None),
        ({"bus_gigabytes_per_second": "1.28"}, None),
        ({"bus_gigabytes_per_second": -1}, None),
    ],
)
def test_the_speed_of_a_large_sum_is_read_where_it_was_measured(
    runs: Path, preflight: object, speed: float | None
) -> None:
    folder = write(runs / "r50", SMALL)
    file = folder / "environment.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "preflight": preflight, "tuning": [{"name": "a"}]}))
    environment = read(folder).environment
    assert environment.bus_bytes_per_second == speed
    assert len(environment.workers) == 2


def test_a_run_that_lives_touches_its_targets(runs: Path) -> None:
    folder = write(runs / "r50", Made(ends=False))
    assert read(folder).state is State.KILLED
    touch(folder, time.time())
    assert read(folder).state is State.RUNNING
    touch(folder, time.time() - 2 * targets.STALE_SECONDS)
    assert read(folder).state is State.KILLED


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_cannot_write_its_targets_touches_its_lock(runs: Path, there: bool) -> None:
    folder = write(runs / "r50", Made(ends=False))
    if not there:
        shutil.rmtree(targets.file(folder).parent)
    (folder / lock.NAME).touch()
    run = read(folder)
    assert run.state is State.RUNNING
    assert run.heard == (folder / lock.NAME).stat().st_mtime
    then = time.time() - 2 * targets.STALE_SECONDS
    os.utime(folder / lock.NAME, (then, then))
    assert read(folder).state is State.KILLED


def test_a_run_that_left_no_end_and_no_targets_was_ended_by_an_error(runs: Path) -> None:
    folder = write(runs / "r50", Made(ends=False))
    targets.file(folder).unlink()
    assert read(folder).state is State.KILLED


def test_a_torn_last_line_is_as_if_it_were_not_there(runs: Path) -> None:
    folder = write(runs / "r50", Made(windows=6, ends=False))
    whole = read(folder)
    append(folder, '{"time": 1795245200.1, "event": "report", "step": 140, "imag')
    torn = read(folder)
    assert (torn.windows, torn.unreadable) == (whole.windows, 0)


def test_what_a_killed_worker_began_to_write_does_not_cost_the_next_start(runs: Path) -> None:
    folder = write(runs / "r50", Made(windows=6, ends=False))
    append(folder, '{"time": 1795245200.1, "event": "rep')
    later = records(Made(windows=6, began=BEGAN + 3600))
    later[0] |= {"event": "resume", "step": 60, "images_seen": 60 * 64}
    append(folder, "".join(json.dumps(event) + "\n" for event in later))
    run = read(folder)
    assert [start.step for start in run.starts] == [0, 60]
    assert (run.unreadable, run.state, len(run.windows)) == (1, State.FINISHED, 12)
    assert set(run.baselines) == {0, 1}
    assert [window.start for window in run.windows] == [0] * 6 + [1] * 6


def test_a_run_that_goes_on_has_not_ended(runs: Path) -> None:
    folder = write(runs / "r50", SMALL)
    later = records(Made(windows=2, began=BEGAN + 3600, ends=False))
    append(folder, "".join(json.dumps(event | {"event": "resume"}) + "\n" for event in later[:1]))
    touch(folder, time.time())
    assert read(folder).state is State.RUNNING


@pytest.mark.parametrize("key", ["lag", "input", "compute"])
def test_a_rank_without_its_number_makes_ranks_unknown(runs: Path, key: str) -> None:
    told = records(Made(windows=2, epochs=1, ends=False).with_fault("input", 0.05).with_fault("straggler", 0.05))
    for event in told:
        if event["event"] == "report":
            event["ranks"][key] = [None, *event["ranks"][key][1:]]
    folder = write(runs / "r50", SMALL)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    assert [window.ranks for window in read(folder).windows] == [None, None]
    assert "waiting for input" in words.one(study(folder))


def test_a_run_of_an_older_version(runs: Path) -> None:
    """Its reports do not tell how many steps they are of, nor how long those took."""
    folder = runs / "old"
    folder.mkdir()
    size = {"world_size": 2, "global_batch_size": 32, "images_per_epoch": 1433, "total_images": 1280}
    reports = [
        {"time": 10.0 + i, "event": "report", "step": 10 * i, "images_seen": 320 * i, "images_per_second": 320.0}
        for i in range(1, 5)
    ]
    events = [{"time": 10.0, "event": "start", "step": 0, "images_seen": 0, **size}, *reports]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    run = read(folder)
    assert [window.steps for window in run.windows] == [10] * 4
    assert [window.step_seconds for window in run.windows] == [0.1] * 4
    assert (run.windows[0].parts, run.windows[0].ranks, run.windows[0].efficiency) == (None, None, None)
    assert (run.config, run.environment.workers, run.baseline) == (None, (), None)


@pytest.mark.parametrize("name", ["config.yaml", "environment.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]", "unknown: 1\n", "\0"])
def test_other_files_may_be_missing_or_torn(name: str, content: str | None, runs: Path) -> None:
    folder = write(runs / "r50", SMALL)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    assert len(read(folder).windows) == 6


def test_no_such_run_names_the_nearest(runs: Path) -> None:
    write(runs / "r50-256", SMALL)
    write(runs / "demo", SMALL)
    with pytest.raises(ConfigError, match=r"runs/r50-255: no such run directory → perhaps runs/r50-256"):
        read(runs / "r50-255")


def test_a_name_alone_is_looked_for_where_runs_are(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(runs / "demo", SMALL)
    monkeypatch.chdir(runs.parent)
    with pytest.raises(ConfigError, match=r"demo: no such run directory → perhaps runs/demo"):
        read(Path("demo"))


def test_a_folder_of_runs_is_none_itself(runs: Path) -> None:
    write(runs / "a", SMALL)
    write(runs / "b", SMALL)
    with pytest.raises(ConfigError, match=r"runs holds 2 runs, is none itself → name one: runs/[ab]"):
        read(runs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a file", "got a file → perhaps runs/made"),
        ("an empty folder", r"found no events.jsonl → perhaps runs/made"),
        ("no event", "has written no event yet → see runs/x/logs"),
        ("no start", "expected a start, found none"),
    ],
)
def test_what_is_no_run(given: str, message: str, runs: Path) -> None:
    write(runs / "made", SMALL)
    folder = runs / "x"
    if given == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
    if given in ("no event", "no start"):
        (folder / "logs").mkdir()
    if given == "no start":
        (folder / "events.jsonl").write_text('{"time": 1.0, "event": "report", "step": 1}\n')
    with pytest.raises(ConfigError, match=message):
        read(folder)


def test_nowhere_any_run(runs: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs/x: no such run directory → hvdtrain train makes one, in --run.dir"):
        read(runs / "x")
