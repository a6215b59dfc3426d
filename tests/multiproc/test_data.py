"""The images of a run through real workers and DALI: the same whoever reads them, however often it was stopped."""

import csv
import os
import shutil
import signal
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hvdtrain.bench import photos
from hvdtrain.data import loader, quarantine, scan, verify
from hvdtrain.data.index import Index
from hvdtrain.data.loader import Augmentation

from ..data import bad_files
from .conftest import Job, Launch

pytestmark = pytest.mark.multiproc

Used = tuple[str, ...]  # epoch, sample, image, top, left, height, width, flip

TOTAL = 2880  # images of a run of EPOCHS: whole steps on two ranks and on three
EPOCHS = ("--epochs=2.0096", "--data.batch_size=4", "--run.trace_images=true", "--evaluation.every_epochs=9")


def used(job: Job) -> Counter[Used]:
    """What the steps of a run used, all ranks together."""
    lines: Counter[Used] = Counter()
    for path in sorted((job.folder / "images").glob("rank-*.csv")):
        with path.open(newline="") as file:
            lines.update(tuple(line[1:]) for line in islice(csv.reader(file), 1, None))
    return lines


def promised(index: Index, images: int) -> Counter[Used]:
    """What the first `images` of the stream are to be, from the index and the seed, 0, alone."""
    (plan,) = islice(
        loader.training_plans(
            index,
            Augmentation((0.6, 1), (3 / 4, 4 / 3), 0),
            seed=0,
            images_seen=0,
            rank=0,
            size=1,
            batch_size=images,
        ),
        1,
    )
    columns = zip(plan.epochs, plan.samples, plan.windows.astype(int), plan.flips, strict=True)
    return Counter(
        (str(epoch), str(row), index.names[row], *map(str, window), str(int(flip)))
        for epoch, row, window, flip in columns
    )


@pytest.fixture(scope="module")
def undisturbed(launch: Launch) -> Job:
    return launch("mpirun", 2, *EPOCHS, name="images-undisturbed").finish()


def test_a_run_uses_what_its_config_promises(undisturbed: Job, digits: Path) -> None:
    found = used(undisturbed)
    assert found == promised(scan.scan(digits / "train", workers=1), TOTAL)
    for epoch in ("0", "1"):
        seen = Counter(line[1] for line in found.elements() if line[0] == epoch)
        assert len(seen) == 1433
        assert set(seen.values()) == {1}


def test_stopped_on_two_ranks_and_continued_on_three_it_uses_the_same_images(launch: Launch, undisturbed: Job) -> None:
    micro_batches = ("--data.batch_size=2", "--train.global_batch_size=12")  # three of each worker, then two
    options = (*EPOCHS, *micro_batches, "--checkpoint.every_epochs=0.5")
    victim = launch("mpirun", 2, *options, name="images-stopped")
    victim.until(
        "a checkpoint in mid-epoch and some steps",
        lambda: bool(victim.events("checkpoint")) and victim.events("report")[-1]["images_seen"] > 800,
    )
    os.kill(victim.environment()["workers"][1]["pid"], signal.SIGKILL)
    code, output = victim.wait()
    assert code != 0, output
    stopped, last = victim.events("checkpoint")[-1]["images_seen"], victim.events("report")[-1]["images_seen"]
    assert 0 < stopped < last < TOTAL
    assert stopped % 1433 != 0

    resumed = launch("mpirun", 3, *options, "--resume=auto", name="images-stopped").finish()
    assert resumed.events("resume")[-1]["images_seen"] == stopped
    assert len(list((resumed.folder / "images").iterdir())) == 3
    assert used(resumed) == used(undisturbed)


def test_evaluation_on_three_ranks_equals_evaluation_on_one_exactly(
    launch: Launch, digits: Path, tmp_path: Path
) -> None:
    some = np.random.default_rng(0).permutation(sorted((digits / "val").rglob("*.JPEG")))[:103]
    for path in some:
        target = tmp_path / path.relative_to(digits)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "train").symlink_to(digits / "train")
    options = ("--max_steps=60", "--data.batch_size=5", "--train.global_batch_size=15", "--evaluation.batch_size=16")
    one_thread = {"OMP_NUM_THREADS": "1"}
    alone = launch("none", 1, *options, name="evaluation-1", data=tmp_path, **one_thread).finish()
    (checkpoint,) = (alone.folder / "checkpoints").iterdir()
    go_on = (*options, f"--resume={checkpoint}")
    three = launch("mpirun", 3, *go_on, name="evaluation-3", data=tmp_path, **one_thread).finish()
    (one,), (all_three,) = alone.events("evaluate"), three.events("evaluate")
    assert one["images"] == 103
    assert 0.2 < one["top1"] < 1
    assert [one[key] for key in ("images", "top1", "top5", "loss")] == [
        all_three[key] for key in ("images", "top1", "top5", "loss")
    ]
    assert three.events("report") == []  # no step was done


def test_staged_images_are_the_same(launch: Launch, undisturbed: Job, tmp_path: Path) -> None:
    options = (*EPOCHS, "--data.stage=copy", f"--data.stage_dir={tmp_path}")
    for launcher in ("mpirun", "horovodrun --gloo"):
        job = launch(launcher, 2, *options, name=f"images-staged-{launcher.split()[0]}")
        code, output = job.wait()
        assert code == 0, output
        assert f"images staged in {tmp_path}/hvdtrain-" in output
        assert used(job) == used(undisturbed)
        assert list(tmp_path.iterdir()) == []  # the node has its room back
    staged, plain = job.weights(), undisturbed.weights()
    assert all(bool((staged[name] == plain[name]).all()) for name in plain)


def test_no_room_to_stage_is_said_before_anything_is_copied(launch: Launch) -> None:
    code, output = launch(
        "mpirun", 2, *EPOCHS, "--data.stage=copy", "--data.stage_dir=/proc/hvdtrain", name="no-stage"
    ).wait()
    assert code == 3, output
    assert output.count("hvdtrain: rank 0: cannot stage images in /proc/hvdtrain/") == 1


@pytest.fixture
def broken(digits: Path, tmp_path: Path) -> tuple[Path, dict[str, list[int]]]:
    """Digits of which some are broken after the index was made, at their old size, and the rows of these."""
    for part in ("train", "val"):
        shutil.copytree(digits / part, tmp_path / part)
    rows = {"train": [7, 8, 700, 1432], "val": [100]}
    for part, bad in rows.items():
        index = scan.find(tmp_path / part, cache=tmp_path, workers=1)
        for row in bad:
            path = tmp_path / part / index.names[row]
            path.write_bytes(bytes(path.stat().st_size))
    return tmp_path, rows


def test_what_breaks_on_the_way_is_left_out_by_all_and_everything_else_is_seen(
    launch: Launch, undisturbed: Job, broken: tuple[Path, dict[str, list[int]]]
) -> None:
    folder, rows = broken
    job = launch("mpirun", 2, *EPOCHS, name="images-broken", data=folder).finish()
    good = {line: n for line, n in used(undisturbed).items() if int(line[1]) not in rows["train"]}
    assert used(job) == good
    listed = quarantine.read(job.folder / quarantine.FILE)
    for part, bad in rows.items():
        index = scan.find(folder / part, cache=folder, workers=1)
        assert {name for name in listed if name.startswith(part)} == {f"{part}/{index.names[row]}" for row in bad}
    assert {(e["part"], f"{e['part']}/{e['image']}") for e in job.events("quarantine")} == {
        (name.split("/")[0], name) for name in listed
    }
    assert job.events("evaluate")[-1]["images"] == 363
    assert job.events("report")[-1]["images_seen"] == TOTAL

    again = launch("mpirun", 1, *EPOCHS, "--resume=auto", name="images-broken", data=folder)
    code, output = again.wait()
    assert code == 0, output
    assert "4 of 1433 train images cannot be decoded and are left out" in output


def test_every_kind_of_bad_file_is_verified_and_trained_past(launch: Launch, digits: Path, tmp_path: Path) -> None:
    """Bad from the beginning: the index knows some of them, and the workers meet the others on the way."""
    for part in ("train", "val"):
        shutil.copytree(digits / part, tmp_path / part)
    photograph = photos.picture((0, 0, 0))
    kinds = {f"train/3/{name}": kind for name, kind in bad_files.write(tmp_path / "train" / "3", photograph).items()}
    assert (len(kinds), len(set(kinds.values()))) == (22, 8)
    report = verify.verify(tmp_path, cache=tmp_path, workers=1)
    assert {f.name: f.kind for f in report.findings if f.fault} == kinds

    options = ("--epochs=2", "--data.batch_size=4", "--run.trace_images=true", "--data.max_bad_ratio=0.05")
    job = launch("mpirun", 2, *options, name="images-bad", data=tmp_path).finish()
    index = scan.find(tmp_path / "train", cache=tmp_path, workers=1)
    good = {row for row in range(len(index)) if f"train/{index.names[row]}" not in kinds}
    assert len(good) == 1433
    good |= {index.names[:].index("3/twice.JPEG")}  # DALI decodes it all the same; Pillow, and so verify, is stricter
    last = job.events("report")[-1]["images_seen"]
    assert last >= 2 * len(index)
    assert used(job) == {line: n for line, n in promised(index, last).items() if int(line[1]) in good}
    seen = Counter(int(line[1]) for line in used(job).elements() if line[0] == "1")
    assert seen == dict.fromkeys(good, 1)

    verify.write_quarantine(report, verify.quarantine_file(tmp_path))
    listed = launch("mpirun", 2, *options, name="images-listed", data=tmp_path).finish()
    assert used(listed) == Counter({line: n for line, n in used(job).items() if line[2] != "3/twice.JPEG"})
    assert listed.events("quarantine") == []  # nothing is left to be found
