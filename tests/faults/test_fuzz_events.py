"""Files of a run with any byte changed, cut or replaced by noise: what is told of it is less, or one short error."""

import io
import json
import random
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvdtrain.data import quarantine, synthetic
from hvdtrain.errors import DataError, HvdtrainError
from hvdtrain.events import Tail, records
from hvdtrain.metrics import baselines, targets
from hvdtrain.metrics.breakdown import Breakdown, breakdown
from hvdtrain.metrics.efficiency import weak
from hvdtrain.metrics.heartbeat import Heartbeat
from hvdtrain.report.live import status
from hvdtrain.report.page import report
from tests.metrics.test_efficiency import ALONE
from tests.report.made import LIVE_WINDOWS, Made, table, write

from .tally import Times, Trials

Damaged = Iterator[tuple[str, bytes]]

TEXTS = [
    *(
        b"[" * 3000,
        b"{" * 3000,
        b'{"a":' * 3000,
        b"9" * 5000,
        b"-",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"null",
        b"true",
        b'""',
    ),
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\n",
        b"\r",
        b'"\\ud800"',
        b"[]",
        b"{}",
        b'{"a": 1}',
        b"1e308",
        b"-1e308",
        b"1e-320",
    ),
]


def damaged(whole: bytes, *, every: int, noise: int) -> Damaged:
    """With a bit of every n-th byte flipped, cut at every n-th byte, and with odd pieces in places at random."""
    for place in range(0, len(whole), every):
        bit = place // every % 8
        yield f"bit {bit} of byte {place}", whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
    for length in range(0, len(whole), every):
        yield f"{length} bytes left", whole[:length]
    values = [at + 2 for at in range(len(whole)) if whole[at : at + 2] == b": "]
    for seed in range(noise):
        draw = random.Random(seed)
        at = draw.choice(values) if values and draw.random() < 0.7 else draw.randrange(len(whole))
        ends = [end for end in (whole.find(mark, at) for mark in (b",", b"}", b"\n")) if end >= 0]
        end = min(ends, default=at) if draw.random() < 0.8 else min(len(whole), at + draw.randrange(40))
        yield f"seed {seed}", whole[:at] + draw.choice([*TEXTS, draw.randbytes(4)]) + whole[end:]


def told(folder: Path) -> bool:
    """Whether both commands say something, or else say one error each."""
    texts = []
    for command in (lambda: report([folder]), lambda: report([folder], as_json=True), lambda: shown(folder)):
        try:
            texts.append(command())
        except HvdtrainError as error:
            assert len(str(error)) < 1000
            texts.append("")
    assert bool(texts[0]) == bool(texts[1]) == bool(texts[2])
    if texts[1]:
        json.loads(texts[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return bool(texts[0])


def shown(folder: Path) -> str:
    with redirect_stdout(io.StringIO()) as screen:
        status(folder)
        status(folder, json=True)
    return screen.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write(tmp_path / "runs" / "made", Made(windows=2, steps=3, epochs=1, quarantined=1))


def test_events_of_a_run(run: Path, trials: Trials, times: Times) -> None:
    file = run / "events.jsonl"
    whole = file.read_bytes()
    outcomes = set()
    with trials("events.jsonl damaged: report and status") as tally:
        for which, content in damaged(whole, every=times(29, 11), noise=times(100, 300)):
            with tally.one(which):
                file.write_bytes(content)
                outcomes.add(told(run))
    assert outcomes == {True, False}


@pytest.mark.parametrize("name", ["environment.json", "config.yaml"])
def test_other_files_of_a_run(name: str, run: Path, trials: Trials, times: Times) -> None:
    file = run / name
    with trials(f"{name} damaged: report and status") as tally:
        for which, content in damaged(file.read_bytes(), every=times(101, 37), noise=times(40, 100)):
            with tally.one(which):
                file.write_bytes(content)
                assert told(run)


def test_records_are_read_to_the_end_whatever_lies_between(tmp_path: Path, trials: Trials, times: Times) -> None:
    """The last record, written whole on a line of its own, is never lost to what is before it."""
    file = tmp_path / "events.jsonl"
    last = b'{"time": 3.0, "event": "end", "step": 9}\n'
    before = b'{"time": 1.0, "event": "start", "step": 0}\n{"time": 2.0, "event": "report", "step": 3, "parts": {}}\n'
    with trials("events.jsonl damaged: its records") as tally:
        for which, content in damaged(before, every=1, noise=times(2000, 10_000)):
            with tally.one(which):
                file.write_bytes(content + b"\n" + last)
                assert list(records(Tail(file).lines()))[-1] == json.loads(last)


def test_speeds_kept_for_later_runs(tmp_path: Path, trials: Trials, times: Times) -> None:
    setting = {"model": "resnet8"}
    kept = replace(ALONE, source="stored")
    path = baselines.save(tmp_path, setting, kept)
    windows = [made_window() for _ in range(LIVE_WINDOWS)]
    outcomes = set()
    with trials("a stored baseline damaged") as tally:
        for which, content in damaged(path.read_bytes(), every=times(3, 1), noise=times(1000, 5000)):
            with tally.one(which):
                path.write_bytes(content)
                found = baselines.load(tmp_path, setting, workers=kept.workers, pixels=kept.pixels)
                outcomes.add(found is None)
                if found:
                    assert abs(found.step_seconds - sum(found.parts.values())) < 1e-6
                    assert str(weak(windows, found))
    assert outcomes == {True, False}


def made_window() -> Breakdown:
    return breakdown(table(Made(), 0, np.random.default_rng(0)))


def test_lists_of_images_left_out(tmp_path: Path, trials: Trials, times: Times) -> None:
    path, index = tmp_path / quarantine.FILE, synthetic.index("val")
    quarantine.write(path, {"train/a/ü.jpg": "truncated", "val/b/2.jpg": "no image", "val/": "x"})
    outcomes = set()
    with trials("quarantine.jsonl damaged") as tally:
        for which, content in damaged(path.read_bytes(), every=1, noise=times(500, 1000)):
            with tally.one(which):
                path.write_bytes(content)
                try:
                    found = quarantine.read(path)
                except DataError as error:
                    assert str(path) in str(error)
                    assert len(str(error)) < 600
                    outcomes.add(False)
                else:
                    assert all(isinstance(text, str) for entry in found.items() for text in entry)
                    quarantine.rows_of(index, "val", found)
                    quarantine.write(path, found)
                    assert quarantine.read(path) == found
                    outcomes.add(True)
    assert outcomes == {True, False}


def test_targets_files_of_other_runs_and_of_ones_own(tmp_path: Path, trials: Trials, times: Times) -> None:
    """A living run writes nothing over what is not its own, and ends without an error beside it."""
    (tmp_path / "run").mkdir()
    path = targets.file(tmp_path / "run")
    text = targets.text("run", ["host:9470"])
    with trials("a targets file damaged while its run lives") as tally:
        for which, content in damaged(text.encode(), every=times(7, 1), noise=times(40, 100)):
            with tally.one(which):
                with Heartbeat(path, text, beat_seconds=60) as heartbeat:
                    path.write_bytes(content)
                    heartbeat._beat()
                    assert path.read_bytes() == content
                assert path.exists() == (content != text.encode())
                path.unlink(missing_ok=True)
