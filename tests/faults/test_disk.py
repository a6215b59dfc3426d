"""A real disk that runs full at every kind of write, for bytes or for names, or lets nobody write any more."""

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from hvdtrain.data import scan

from .runs import Ended, Ready, equal, only_whole_checkpoints, ready, until
from .space import PAGE, Space, disk
from .tally import Times, Trials

STEPS = 12
RUN = (
    *(f"--max_steps={STEPS}", "--data.batch_size=4", "--checkpoint.every_epochs=0.01", "--evaluation.at_end=false"),
    *("--run.trace_images=true", "--data.max_bad_ratio=0.5"),
)
AMPLE = "size=8m,nr_inodes=1000"
BAD = 80  # of 1433 images, so that some are met within a few steps and quarantine.jsonl is written

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def spoilt(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("spoilt") / "digits"
    shutil.copytree(digits, data)
    scan.find(data / "train", cache=data, workers=1)
    images = sorted((data / "train").glob("*/*"))
    for image in random.Random(0).sample(images, BAD):
        image.write_bytes(bytes(image.stat().st_size))  # after the index was made, which would have known it
    return data


@pytest.fixture(scope="module")
def runs(spoilt: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    with ready(spoilt, tmp_path_factory.mktemp("ready")) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(runs: Ready, tmp_path_factory: pytest.TempPathFactory) -> Weights:
    ended = runs.run(tmp_path_factory.mktemp("undisturbed") / "run", *RUN)
    assert ended.code == 0, ended.output
    assert (ended.folder / "quarantine.jsonl").read_text().count("\n") > 0
    return ended.weights()


def first_victim(ended: Ended) -> str:
    """The file, or folder, of the first write that failed, within the disk. The log has its last line when the run
    fails, so its complaint right before the message is about that."""
    refused = re.findall(r"(hvdtrain: )?(\S+) (?:cannot be [wmsrp]|has no room)", ended.output)
    if len(refused) > 1 and refused[-1][0] and refused[-2][1].endswith(".log"):
        del refused[-2]
    return str(Path(refused[0][1]).relative_to(ended.folder.parent))


def failure(ended: Ended, which: str) -> str:
    """The one message."""
    message = ended.failure()
    print(f"{which}: first {first_victim(ended)}, then {message}")
    return message


def goes_on(runs: Ready, folder: Path, undisturbed: Weights, *options: str) -> None:
    only_whole_checkpoints(folder)
    resumed = runs.run(folder, *RUN, *options, "--resume=auto")
    assert resumed.code == 0, resumed.output
    equal(resumed.weights(), undisturbed)


def test_full_from_the_start(runs: Ready, undisturbed: Weights, trials: Trials, times: Times, tmp_path: Path) -> None:
    """But for some pages, which the lock, the log, the trace, config.yaml, environment.json, the targets file and
    events.jsonl take one after the other."""
    victims = []
    with trials("disk full but for n pages from the start, then resume") as tally:
        for pages in range(times(7, 10)):
            with tally.one(f"n = {pages}"), disk(tmp_path / str(pages), AMPLE) as space:
                space.leave(pages * PAGE)
                ended = runs.run(space.folder / "run", *RUN)
                failure(ended, f"{pages} pages")
                victims.append(first_victim(ended))
                space.empty()
                goes_on(runs, ended.folder, undisturbed)
    assert victims[:7] == FIRST
    assert set(victims[7:]) <= {"run/events.jsonl", "run/quarantine.jsonl", "run/checkpoints"}


FIRST = [
    "run",
    "run/images/rank-0.csv",
    "run/config.yaml",
    "run/environment.json",
    ".targets/run.json",
    "run/logs/rank-0.log",
    "run/events.jsonl",
]
LATER = {
    "quarantine.jsonl": "run/quarantine.jsonl",
    "tensors.pt": "run/checkpoints/images-000000000016",
    "manifest.json": "run/checkpoints/images-000000000016",
}


def test_full_when_a_later_file_is_begun(
    runs: Ready, undisturbed: Weights, trials: Trials, times: Times, tmp_path: Path
) -> None:
    """What comes too late for the test before, or after a look whether there is room: at once, or some pages on."""
    with trials("disk full from the begin of a later file on, then resume") as tally:
        for name, expected in LATER.items():
            for pages in [0, 1, 2, 3, 10, 50, 100, 150, 160, 163, 164, 165, 166, 170][: times(2, 4)]:
                with tally.one(f"{name}, {pages} pages left"), disk(tmp_path / f"{name[0]}{pages}", AMPLE) as space:
                    ended = runs.run(space.folder / "run", *RUN, full=(name, pages * PAGE, space.folder))
                    message = failure(ended, f"{name}, {pages} pages")
                    assert "No space left on device" in message or "has no room for a checkpoint" in message
                    if pages == 0:
                        assert first_victim(ended) == expected
                    space.empty()
                    goes_on(runs, ended.folder, undisturbed)


def test_full_in_mid_run(runs: Ready, undisturbed: Weights, trials: Trials, times: Times, tmp_path: Path) -> None:
    """Somebody else takes what is left, at any moment."""
    with trials("disk becomes full in mid-run, then resume") as tally:
        for seed in range(times(2, 6)):
            with tally.one(f"seed {seed}"), disk(tmp_path / str(seed), AMPLE) as space:
                chance = random.Random(seed)
                ended = runs.run(
                    space.folder / "run",
                    *RUN,
                    meanwhile=lambda folder, space=space, chance=chance: fill_at(folder, space, chance),
                )
                if ended.code != 0:
                    failure(ended, f"seed {seed}")
                space.empty()
                goes_on(runs, ended.folder, undisturbed)


def fill_at(folder: Path, space: Space, chance: random.Random) -> None:
    step = chance.randrange(1, STEPS - 2)
    until(lambda: reports(folder) >= step)
    space.leave(chance.choice([0, PAGE, 2 * PAGE, 64 * PAGE, 300 * PAGE]))


def reports(folder: Path) -> int:
    events = folder / "events.jsonl"
    return events.read_text().count('"event": "report"') if events.exists() else 0


def test_no_names_left(runs: Ready, undisturbed: Weights, trials: Trials, times: Times, tmp_path: Path) -> None:
    """A disk with room, and no inode for another file."""
    with trials("disk with n inodes, then resume with more") as tally:
        for inodes in [4, 8, 12, 17, *(n for n in range(2, 24) if n not in (4, 8, 12, 17))][: times(4, 8)]:
            with tally.one(f"n = {inodes}"), disk(tmp_path / str(inodes), f"size=8m,nr_inodes={inodes}") as space:
                ended = runs.run(space.folder / "run", *RUN)
                if ended.code != 0:
                    assert "No space left on device" in failure(ended, f"{inodes} inodes")
                subprocess.run(["mount", "-o", f"remount,{AMPLE}", space.folder], check=True)
                goes_on(runs, ended.folder, undisturbed)


def test_read_only(runs: Ready, undisturbed: Weights, trials: Trials, times: Times, tmp_path: Path) -> None:
    """From the start, or from any step on; what a run has open then, it can still write."""
    with trials("disk read-only, then resume") as tally:
        for seed in range(times(2, 6)):
            with tally.one(f"seed {seed}"), disk(tmp_path / str(seed), AMPLE) as space:
                step, folder = random.Random(seed).randrange(1, STEPS - 5), space.folder / "run"
                if seed == 0:
                    space.read_only(True)
                    ended = runs.run(folder, *RUN)
                    space.read_only(False)
                else:
                    with space.read_only_later() as close:
                        ended = runs.run(
                            folder, *RUN, meanwhile=lambda folder, close=close, step=step: close_at(folder, close, step)
                        )
                assert "Read-only file system" in failure(ended, f"seed {seed}")
                goes_on(runs, ended.folder, undisturbed)


def close_at(folder: Path, close: Callable[[], None], step: int) -> None:
    until(lambda: reports(folder) >= step)
    close()
