"""Events for machines: written, and read again."""

import json
import time
from pathlib import Path

from hvdtrain.events import EventLog, Tail, records


def test_an_event_is_a_line_of_json_that_is_there_at_once(tmp_path: Path) -> None:
    before = time.time()
    events = EventLog(tmp_path / "deep" / "events.jsonl")
    events.write("report", step=3, loss=0.5, path="ü")
    (line,) = (tmp_path / "deep" / "events.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert before <= record.pop("time") <= time.time()
    assert record == {"event": "report", "step": 3, "loss": 0.5, "path": "ü"}
    events.close()


def test_events_are_added_to_those_of_the_run_before(tmp_path: Path) -> None:
    for step in (1, 2):
        events = EventLog(tmp_path / "events.jsonl")
        events.write("report", step=step)
        events.close()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_loss_that_is_no_number_is_still_json(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    events.write("report", step=1, loss=float("nan"), parts={"input": float("inf")}, lag=[float("nan")])
    events.close()

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    json.loads((tmp_path / "events.jsonl").read_text(), parse_constant=refuse)


def test_another_file_in_its_place_is_read_from_its_begin(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("a long line\nand another\n")
    tail = Tail(file)
    assert len(tail.lines()) == 2
    file.write_text("new\n")
    assert tail.lines() == [b"new"]


def test_half_a_line_of_a_killed_writer_does_not_swallow_what_is_written_behind_it() -> None:
    lines = [b'{"time": 1.0, "event": "start"}', b'{"time": 2.0, "ev{"time": 3.0, "event": "resume"}']
    found = list(records(lines))
    assert [record and record["event"] for record in found] == ["start", None, "resume"]


def test_an_empty_file_and_an_unfinished_line_have_no_record(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    for text in ("", '{"time": 1.0, "event": "start"}'):
        file.write_text(text)
        assert list(records(Tail(file).lines())) == []
