"""A disk that is full, for a while or for good: what may be lost is lost alone, and said; what may not ends the run."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hvdtrain import log
from hvdtrain.data import quarantine, synthetic
from hvdtrain.data.loader import Plan
from hvdtrain.errors import EnvironmentFault
from hvdtrain.events import EventLog, Tail, records
from hvdtrain.files import folder_whole, replace_whole, write_whole
from hvdtrain.train.trace import Trace, forget_after

from .tally import Trials

FULL = "No space left on device"
LONG = "." * 20_000  # more than a page, of which a full disk may have one left


class Disk:
    """A small one, mounted for a test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        with (self.path / "filler").open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                assert error.strerror == FULL

    def empty(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def one_log() -> Iterator[None]:
    """The log as it was before, afterwards."""
    handlers, level, propagate = log.logger.handlers[:], log.logger.level, log.logger.propagate
    yield
    for handler in log.logger.handlers[:]:
        if handler not in handlers:
            log.logger.removeHandler(handler)
            handler.close()
    log.logger.level, log.logger.propagate = level, propagate


def told(path: Path) -> list[int | None]:
    """The steps of the records there, None where a line is none."""
    return [None if record is None else record["step"] for record in records(Tail(path).lines())]


def test_events_are_lost_alone_and_counted(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    path = disk.path / "run" / "events.jsonl"
    events = EventLog(path)
    events.write("report", step=1)
    disk.fill()
    for step in (2, 3, 4):
        events.write("report", step=step, text=LONG)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} cannot be written: {FULL}; the run goes on without it"
    ]
    disk.empty()
    for step in (5, 6):
        events.write("report", step=step)
    events.close()
    assert [step for step in told(path) if step] == [1, 5, 6]
    assert [record.getMessage() for record in caplog.records[1:]] == [
        f"{path} can be written again; records missing there: 3"
    ]


def test_events_that_are_missing_at_the_end_are_told(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    path = disk.path / "events.jsonl"
    events = EventLog(path)
    disk.fill()
    events.write("end", step=1, text=LONG)
    events.close()
    assert caplog.records[-1].getMessage() == f"{path} is not whole; records missing there: 1"
    disk.empty()
    again = EventLog(path)
    again.write("resume", step=2)
    again.close()
    assert [step for step in told(path) if step] == [2]


def test_events_that_have_no_place_are_refused_by_name(disk: Disk) -> None:
    disk.fill()
    (disk.path / "run").symlink_to("/proc/none")
    with pytest.raises(EnvironmentFault, match=f"{disk.path}/run/events.jsonl cannot be written: .* → df -h"):
        EventLog(disk.path / "run" / "events.jsonl")


LIMITED = """
import json, logging, resource, sys
from pathlib import Path
from hvdtrain.events import EventLog
from hvdtrain.log import logger

class Heard(logging.Handler):
    def emit(self, record):
        heard.append(record.getMessage())

heard = []
logger.addHandler(Heard())
logger.propagate = False
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
path = Path("events.jsonl")
for limit in range(*map(int, sys.argv[1:])):
    heard.clear()
    path.unlink(missing_ok=True)
    events = EventLog(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    for step in range(1, 5):
        events.write("report", step=step, text="twenty letters of it")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    events.write("report", step=5)
    events.close()
    print(json.dumps([limit, path.read_text(), heard]))
"""


def test_a_file_that_may_grow_to_any_byte_and_no_further(trials: Trials, tmp_path: Path) -> None:
    """Short writes of every length; the next record that fits is whole."""
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, "0", "420"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    with trials("events.jsonl may grow to byte n and no further") as tally:
        for line in ran.stdout.splitlines():
            limit, text, heard = json.loads(line)
            with tally.one(f"n = {limit}"):
                (tmp_path / "events.jsonl").write_text(text)
                there = [step for step in told(tmp_path / "events.jsonl") if step]
                missing = 5 - len(there)
                assert there == [*range(1, 5 - missing), 5]
                if heard:
                    first, last = heard
                    assert "events.jsonl cannot be written: File too large;" in first
                    assert last == f"events.jsonl can be written again; records missing there: {missing}"
                else:
                    assert not missing
                assert text.count("\n") <= 7


def test_a_ranks_log_on_a_full_disk_is_one_plain_line_and_the_run_goes_on(disk: Disk) -> None:
    program = f"""
import sys
from pathlib import Path
from hvdtrain import log
log.configure(1, log_dir=Path({str(disk.path)!r}))
for number in range(50):
    log.logger.debug("%d {LONG}", number)
try:
    1 / 0
except ZeroDivisionError:
    log.logger.debug("with a traceback", exc_info=True)
log.logger.warning("heard")
Path({str(disk.path / "filler")!r}).unlink()
log.logger.debug("written again")
"""
    disk.fill()
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    path = disk.path / "rank-1.log"
    assert ran.stderr == f"{path} cannot be written: {FULL}; the run goes on without it\n[rank 1] heard\n"
    assert path.read_text().splitlines()[-1].endswith("rank 1 DEBUG written again")


def test_a_screen_on_a_full_disk_does_not_end_the_run(disk: Disk) -> None:
    disk.fill()
    with (disk.path / "stderr").open("ab", buffering=0) as stderr:
        program = """
from hvdtrain import log
log.configure(0)
for _ in range(9):
    log.logger.info("." * 9999)
print("went on")
"""
        ran = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert ran.stdout == "went on\n"


@pytest.mark.usefixtures("one_log")
def test_a_log_that_cannot_begin_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").touch()
    log.configure(0, log_dir=tmp_path / "logs")
    log.logger.info("heard")
    path = tmp_path / "logs" / "rank-0.log"
    assert capsys.readouterr().err == f"{path} cannot be written: File exists; the run goes on without it\nheard\n"


def plan(rows: int) -> Plan:
    samples = np.arange(rows)
    windows = np.ones((rows, 4), np.float32)
    return Plan(samples, samples, samples, windows, windows.astype(np.int32), np.ones(rows, np.bool_), 8)


def test_a_trace_is_evidence_and_its_loss_ends_the_run_by_name(disk: Disk) -> None:
    trace = Trace(disk.path / "images", 0, synthetic.index("val"))
    trace.write(plan(3))
    disk.fill()
    with pytest.raises(EnvironmentFault, match=f"{disk.path}/images/rank-0.csv cannot be written: {FULL}.*resume auto"):
        trace.write(plan(2000))
    trace.close()
    disk.empty()
    forget_after(disk.path / "images", 8)
    lines = (disk.path / "images" / "rank-0.csv").read_text().splitlines()
    assert lines[0].startswith("images_seen,")
    assert {len(line.split(",")) for line in lines} == {9}
    assert len(lines) > 3


def test_a_trace_that_cannot_begin_or_be_cut_back_is_named(disk: Disk) -> None:
    trace = Trace(disk.path, 0, synthetic.index("val"))
    trace.write(plan(100))
    trace.close()
    disk.fill()
    for attempt in (lambda: forget_after(disk.path, 8), lambda: Trace(disk.path, 1, synthetic.index("val"))):
        with pytest.raises(EnvironmentFault, match=f"rank-[01].csv cannot be written: {FULL}"):
            attempt()
    assert {path.name for path in disk.path.iterdir()} == {"filler", "rank-0.csv", "rank-1.csv"}


def test_what_is_written_whole_leaves_the_old_and_nothing_else(disk: Disk) -> None:
    write_whole(disk.path / "a", "old")
    disk.fill()
    before = set(disk.path.iterdir())
    with pytest.raises(OSError, match=FULL):
        write_whole(disk.path / "a", LONG)
    with pytest.raises(OSError, match=FULL), replace_whole(disk.path / "a", "wb") as file:
        for _ in range(10):
            file.write(bytes(9999))
    with pytest.raises(OSError, match=FULL), folder_whole(disk.path / "b") as folder:
        (folder / "c").write_text(LONG)
    assert set(disk.path.iterdir()) == before
    assert (disk.path / "a").read_text() == "old"


def test_a_quarantine_list_that_cannot_be_written_is_named_and_stays(disk: Disk) -> None:
    path = disk.path / quarantine.FILE
    quarantine.write(path, {"train/a.jpg": "cut"})
    disk.fill()
    more = {f"train/{number}.jpg": "cut" for number in range(1000)}
    with pytest.raises(EnvironmentFault, match=f"the quarantine list {path} cannot be written: {FULL} → df -h"):
        quarantine.write(path, more)
    assert quarantine.read(path) == {"train/a.jpg": "cut"}
    assert {file.name for file in disk.path.iterdir()} == {"filler", quarantine.FILE}


def test_the_disk_of_these_tests_is_one_of_its_own(disk: Disk) -> None:
    assert os.stat(disk.path).st_dev != os.stat(disk.path.parent).st_dev  # noqa: PTH116
