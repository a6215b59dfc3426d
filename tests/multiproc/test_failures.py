"""A failure is one readable message and the end of the job, never a hang."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from hvdtrain.data import scan

from .conftest import Launch

pytestmark = pytest.mark.multiproc

LAUNCHERS = ["mpirun", "horovodrun --gloo"]
SECONDS = 60  # on a busy machine; what this excludes is a hang, which has no end


def messages(output: str) -> list[str]:
    """The lines that are ours; horovodrun puts the rank in front."""
    return [line.partition("hvdtrain: ")[2] for line in output.splitlines() if "hvdtrain: " in line]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_wrong_setting_is_told_once_and_no_rank_starts(launch: Launch, launcher: str) -> None:
    job = launch(launcher, 2, "--data.bach_size=4", name=f"wrong-{launcher.split()[0]}")
    code, output = job.wait()
    assert code == (2 if launcher == "mpirun" else 1)  # horovodrun has one code for every failure
    (message,) = messages(output)
    assert "unknown option --data.bach_size" in message
    assert "the nearest is --data.batch_size" in message
    assert not job.folder.exists()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_missing_data_names_rank_and_cause(launch: Launch, launcher: str, tmp_path: Path) -> None:
    job = launch(launcher, 3, name=f"no-data-{launcher.split()[0]}", data=tmp_path / "nowhere")
    code, output = job.wait()
    assert code != 0
    (message,) = messages(output)
    assert message.startswith("rank 0: no folder")
    assert "nowhere" in message


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_too_many_bad_files_end_the_job_with_one_message(
    launch: Launch, launcher: str, digits: Path, tmp_path: Path
) -> None:
    """Only one rank meets the file; the others hear of it at the next report, and all end together."""
    data = tmp_path / "digits"
    shutil.copytree(digits, data)
    scan.find(data / "train", cache=tmp_path, workers=1)
    bad = sorted((data / "train" / "3").iterdir())[50]
    bad.write_bytes(bytes(bad.stat().st_size))  # after the index was made, which would have known it
    options = ("--data.batch_size=8", "--data.max_bad_ratio=0")
    code, output = launch(launcher, 2, *options, name=f"bad-file-{launcher.split()[0]}", data=data).wait()
    assert code != 0
    (message,) = messages(output)
    assert message.startswith(
        "rank 0: 1 of 1433 train images cannot be decoded: expected at most data.max_bad_ratio = 0"
    )
    assert f"left out: {bad} cannot be decoded: " in output


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_killed_rank_ends_the_job(launch: Launch, launcher: str) -> None:
    job = launch(launcher, 2, "--data.batch_size=4", "--epochs=50", name=f"lost-{launcher.split()[0]}")
    job.until("the first steps", lambda: len(job.events("report")) > 3)
    os.kill(job.environment()["workers"][1]["pid"], signal.SIGKILL)
    began = time.monotonic()
    code, output = job.wait()
    assert code != 0, output
    assert time.monotonic() - began < SECONDS


def test_second_run_in_a_directory_is_refused(launch: Launch) -> None:
    launch("none", 1, "--max_steps=2", name="twice").finish()
    code, output = launch("none", 1, "--max_steps=2", name="twice").wait()
    assert code == 2
    (message,) = messages(output)
    assert "holds a run already" in message
    assert "--resume auto" in message
