"""`hvdtrain status`, once and followed."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hvdtrain import events
from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.events import records
from hvdtrain.metrics import targets
from hvdtrain.report import live, text
from hvdtrain.report.read import open_events, read
from tests.report import changed, made
from tests.report.changed import Set
from tests.report.made import Made, write

GOING = Made(windows=12, ends=False)


@pytest.fixture
def run(runs: Path) -> Path:
    folder = write(runs / "r50", GOING)
    made.touch(folder, time.time())
    return folder


class Clock:
    """Instead of sleeping, something happens to the run: one of `steps` at each look."""

    def __init__(self, steps: Iterator[Any]) -> None:
        self.looks, self._steps = 0, steps

    def sleep(self, _: float) -> None:
        self.looks += 1
        next(self._steps)

    def time(self) -> float:
        return time.time()


def reports(folder: Path, *, then: str) -> Iterator[None]:
    """A report at every second look, and then an end or a death."""
    later = [
        event for event in made.records(Made(windows=3, epochs=1, began=time.time())) if event["event"] == "report"
    ]
    with (folder / "events.jsonl").open("a") as file:
        for i, event in enumerate(later):
            line = json.dumps(event | {"step": 260 + 20 * i}) + "\n"
            file.write(line[:50])
            file.flush()
            yield
            file.write(line[50:])
            file.flush()
            yield
        if then == "end":
            end = {"time": time.time(), "event": "end", "step": 300, "images_seen": 0, "seconds": 9.0}
            file.write(json.dumps(end | {"images_per_second": 1.0}) + "\n")
        else:
            targets.file(folder).unlink()
        file.flush()
        yield
    raise AssertionError("it was looked at again")


def follow(folder: Path, monkeypatch: pytest.MonkeyPatch, *, then: str, as_json: bool = False) -> tuple[int, Clock]:
    clock = Clock(reports(folder, then=then))
    monkeypatch.setattr(live, "time", clock)
    return live.status(folder, follow=True, json=as_json), clock


def test_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.status(run) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("run         r50  running\n            resnet50, float32, 2 workers")
    assert "\x1b" not in shown


def test_a_killed_run_has_an_exit_code(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.status(write(runs / "dead", GOING)) == 1
    assert "killed" in capsys.readouterr().out
    assert live.status(write(runs / "done", Made(windows=3))) == 0


def test_as_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.status(run, json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["state"], told["step"]) == ("r50", "running", 240)
    assert told["efficiency"] + sum(told["losses"].values()) == pytest.approx(1)


def test_followed_without_a_terminal_each_report_is_a_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, clock = follow(run, monkeypatch, then="end")
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split("  ")[1] for line in lines[:4]] == ["step 240", "step 260", "step 280", "step 300"]
    assert lines[4] == "finished at epoch 0.75/3, step 300, top-1 44.87 %"
    assert len(lines) == 5
    assert clock.looks == 7


def test_it_ends_with_a_run_that_is_killed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = follow(run, monkeypatch, then="death", as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 1
    assert [each["state"] for each in told] == ["running"] * 4 + ["killed"]


def test_on_a_terminal_the_screen_stays_in_its_place(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    code, _ = follow(run, monkeypatch, then="end")
    shown = capsys.readouterr().out
    assert code == 0
    assert shown.count("\x1b[1A") > 50  # up again, line by line
    assert "finished" in shown.rsplit("efficiency", maxsplit=1)[0][-2000:]


def test_leaving_with_control_c_is_no_error(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(live, "time", Clock(interrupted()))
    assert live.status(run, follow=True) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.fixture
def changing(runs: Path) -> Path:
    """An elastic run between two sets of workers; what the next one will tell is in rest.jsonl."""
    folder = changed.write(runs / "r50", [Set(2, 12), Set(1, 3), Set(3, 2)])
    told = (folder / "events.jsonl").read_text()
    till = told.rindex("\n", 0, told.rindex('"resume"')) + 1
    (folder / "events.jsonl").write_text(told[:till])
    (folder / "rest.jsonl").write_text(told[till:])
    last_word(folder, 300)
    return folder


def last_word(folder: Path, age: float) -> None:
    os.utime(folder / "events.jsonl", (time.time() - age, time.time() - age))


def test_between_two_sets_of_workers(changing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.status(changing) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first == "run         r50  changing workers for 5 min 0 s"
    assert second.startswith("            resnet50, float32, 1 worker, changed 1 time (NVIDIA H100")
    assert live.now(changing)["state"] == "changing"
    assert text.state(read(changing)).startswith("changing workers; last sign of life ")


def test_who_expects_no_others_or_waits_too_long_was_killed(changing: Path) -> None:
    last_word(changing, 901)
    assert live.now(changing)["state"] == "killed"
    owner = changing / ".owner.json"
    owner.write_text("{}")  # it lived later than it wrote
    assert live.now(changing)["state"] == "running"
    os.utime(owner, (time.time() - 61, time.time() - 61))
    assert live.now(changing)["state"] == "changing"
    (changing / "outcome").write_text("6 rank 1 has gone\n")
    assert live.now(changing)["state"] == "killed"
    (changing / "outcome").unlink()
    (changing / "config.yaml").write_text(to_yaml(Config()))
    assert live.now(changing)["state"] == "killed"


def test_when_its_job_is_over_no_others_come(changing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert live.goes_on(changing)
    assert live.status(changing, job_over=True) == 1
    assert capsys.readouterr().out.startswith("run         r50  killed 5 min 0 s ago")
    assert live.now(changing, job_over=True)["state"] == "killed"


def test_it_is_followed_over_a_change_of_workers(
    changing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = (changing / "rest.jsonl").read_text().splitlines(keepends=True)

    def others() -> Iterator[None]:
        yield
        made.touch(changing, time.time())
        for lines in ([], rest[:1], rest[1:3], rest[3:]):
            with (changing / "events.jsonl").open("a") as file:
                file.writelines(lines)
            yield

    monkeypatch.setattr(live, "time", Clock(others()))
    assert live.status(changing, follow=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()[:6]) for line in lines] == [
        "changing workers at epoch 0.82/1, step",
        "epoch 0.82/1 step 150 1 worker",
        "epoch 0.91/1 step 160 3 workers",
        "finished at epoch 1.00/1, step 170",
    ]


def test_only_what_is_new_is_read(run: Path) -> None:
    tail = open_events(run)
    whole = (run / "events.jsonl").read_bytes()
    assert len(tail.lines()) == whole.count(b"\n")
    assert tail.lines() == []
    with (run / "events.jsonl").open("a") as file:
        file.write('{"time": 1.0, ')
        file.flush()
        assert tail.lines() == []
        file.write('"event": "x"}\n{"ti')
        file.flush()
        assert tail.lines() == [b'{"time": 1.0, "event": "x"}']


def test_of_many_reports_only_the_last_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps(event).encode() for event in made.records(Made(windows=50))]
    parsed: list[bytes] = []
    parse = events._record
    monkeypatch.setattr(events, "_record", lambda line: parsed.append(line) or parse(line))
    found = [record["event"] for record in records(lines, last_reports=3) if record]
    assert len(parsed) == len(found) < 15
    assert found.count("report") == 3
    assert (found[0], found[1], found[-1]) == ("start", "baseline", "end")
