"""The archives of ILSVRC2012 -> folders of classes: the right labels, whatever is killed, lost or full."""

import dataclasses
import fcntl
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections import Counter, namedtuple
from pathlib import Path

import pytest

from hvdtrain.data import archives, extract
from hvdtrain.data import prepare as verb
from hvdtrain.data.prepare import prepare
from hvdtrain.errors import DataError, EnvironmentFault
from tests.data.ilsvrc import (
    TRAIN,
    TRUTH_IDS,
    WNID_OF_ID,
    Given,
    images,
    tar,
    tree,
    truth,
    validation_images,
    write,
)


@pytest.fixture
def given_archives(tmp_path: Path) -> Given:
    return write(tmp_path / "archives")


def test_every_image_is_in_the_folder_of_its_class(given_archives: Given, tmp_path: Path) -> None:
    assert given_archives.into(tmp_path / "out") == {"train": 14, "val": 12}
    assert images(tmp_path / "out") == truth()
    folders = {path.name for path in (tmp_path / "out").iterdir()}
    assert folders == {"train", "val", ".hvdtrain"}
    assert {path.name for path in (tmp_path / "out" / "train").iterdir()} == set(TRAIN)


def test_the_ids_here_are_not_in_the_order_of_the_wnids() -> None:
    wnids = list(WNID_OF_ID.values())
    assert wnids != sorted(wnids)
    assert list(TRAIN) not in (wnids, sorted(wnids))


def test_each_part_may_be_prepared_alone(given_archives: Given, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(out, train=given_archives.train, check_digests=False) == {"train": 14}
    assert not (out / "val").exists()
    assert prepare(out, val=given_archives.val, devkit=given_archives.devkit, check_digests=False) == {"val": 12}
    assert images(out) == truth()


def test_validation_images_in_another_order_have_the_same_labels(given_archives: Given, tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(list(validation_images().items()), len(TRUTH_IDS))
    given_archives.val.write_bytes(tar(shuffled))
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_the_size_of_a_batch_makes_no_difference(
    size: int, given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "BATCH_IMAGES", size)
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_any_kind_of_tar_will_do(format: int, given_archives: Given, tmp_path: Path) -> None:
    entries = []
    for name, data in validation_images().items():
        info = tarfile.TarInfo(name)
        info.mtime = 1.5  # which pax writes into a header of its own
        info.size = len(data)
        entries.append((info, data))
    with tarfile.open(given_archives.val, "w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


def test_the_folder_may_be_a_link_to_another_disk(given_archives: Given, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train").symlink_to(tmp_path / "disk")
    given_archives.into(tmp_path / "out")
    assert {path.name for path in (tmp_path / "disk").iterdir()} == set(TRAIN)
    assert (tmp_path / "out" / "train").is_symlink()


def test_the_archives_are_only_read(given_archives: Given, tmp_path: Path) -> None:
    sources = (given_archives.train, given_archives.val, given_archives.devkit)
    for path in sources:
        path.chmod(0o444)
    given_archives.train.parent.chmod(0o555)
    before = [(path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino, path.stat().st_mode) for path in sources]
    try:
        given_archives.into(tmp_path / "out")
    finally:
        given_archives.train.parent.chmod(0o755)
    after = [(path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino, path.stat().st_mode) for path in sources]
    assert after == before
    assert len(list(given_archives.train.parent.iterdir())) == 3


def test_neither_torch_nor_the_like_is_imported(given_archives: Given, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from hvdtrain.data.prepare import prepare
prepare(Path({str(tmp_path / "out")!r}), train=Path({str(given_archives.train)!r}), check_digests=False)
print(sorted({{"torch", "horovod", "nvidia.dali", "torchvision", "mpi4py", "scipy"}} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def states(folder: Path) -> dict[str, tuple[int, int, int]]:
    everything = [folder, *folder.rglob("*")]
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_ctime_ns, p.stat().st_ino) for p in everything}


def test_a_second_run_changes_nothing_and_says_so(
    given_archives: Given, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_archives.into(tmp_path / "out")
    before = states(tmp_path / "out")
    monkeypatch.setattr(extract, "content", None)  # no image is read
    caplog.set_level("INFO", logger="hvdtrain")
    assert given_archives.into(tmp_path / "out") == {"train": 14, "val": 12}
    assert states(tmp_path / "out") == before
    assert f"{tmp_path}/out/train was finished before" in caplog.messages
    assert f"{tmp_path}/out/val has 12 images of 4 classes" in caplog.messages


KILLED = """
import json, os, signal, sys
from pathlib import Path
from hvdtrain.data import prepare as verb

out, train, val, devkit = map(Path, sys.argv[1:])
verb.BATCH_IMAGES = 5
left = -1

def count(event, arguments):
    # every opening, renaming, removal below `out` is a place to die at
    global left
    if left >= 0 and event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.scandir"):
        if str(arguments[0]).startswith(str(out)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

def run(folder, life):
    global left
    child = os.fork()
    if child == 0:
        left = life
        verb.prepare(folder, train=train, val=val, devkit=devkit, check_digests=False)
        os._exit(0)
    return os.waitpid(child, 0)[1]

def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}

def whole(folder, images):
    # what has its name is whole
    return all(p.read_bytes() == images[p.name] for p in folder.glob("*/n*/*.JPEG"))

sys.addaudithook(count)
assert run(out / "undisturbed", -1) == 0
wanted = tree(out / "undisturbed")
images = {name.split("/")[-1]: content for name, content in wanted.items() if name.endswith(".JPEG")}
deaths, life = 0, 0
while True:
    folder = out / str(life)
    if run(folder, life) == 0:
        break
    deaths += 1
    assert whole(folder, images), ("torn", life)
    again = run(folder, life)  # and once more at the same place, or at the end
    assert whole(folder, images), ("torn again", life)
    assert again in (0, signal.SIGKILL), (again, life)
    assert run(folder, -1) == 0, ("not resumed", life)
    assert tree(folder) == wanted, ("different", life)
    life += 1
print(deaths, len(images))
"""


def test_killed_anywhere_and_started_again_the_result_is_the_same(given_archives: Given, tmp_path: Path) -> None:
    paths = [str(path) for path in (tmp_path / "out", *dataclasses.astuple(given_archives))]
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, *paths],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    deaths, count = map(int, ran.stdout.split())
    assert count == len(truth())
    assert deaths > 3 * count  # each image is opened and renamed at least, and what is around it


@pytest.mark.parametrize("count", range(26))
def test_at_most_one_batch_is_done_twice(
    count: int, given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def stopped(file: io.BufferedReader, image: archives.Image, where: str) -> bytes:
        if len(read) == count:
            raise KeyboardInterrupt
        read.append(image.name)
        return archives.content(file, image, where)

    def counted(file: io.BufferedReader, image: archives.Image, where: str) -> bytes:
        read.append(image.name)
        return archives.content(file, image, where)

    monkeypatch.setattr(verb, "BATCH_IMAGES", 5)
    monkeypatch.setattr(extract, "content", stopped)
    with pytest.raises(KeyboardInterrupt):
        given_archives.into(tmp_path / "out")
    monkeypatch.setattr(extract, "content", counted)
    given_archives.into(tmp_path / "out")
    again = [name for name, times in Counter(read).items() if times > 1]
    assert set(read) == {path.split("/")[-1] for path in truth()}
    assert len(again) < 5
    assert max(Counter(read).values()) <= 2
    assert len({name.split("_")[0] for name in again}) <= 1


def test_an_interrupt_leaves_no_half_written_files(
    given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(extract, "content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        given_archives.into(tmp_path / "out")
    assert list((tmp_path / "out" / "train").iterdir()) == [tmp_path / "out" / "train" / ".unfinished"]
    assert list((tmp_path / "out" / "train" / ".unfinished").iterdir()) == []


@pytest.mark.parametrize("part", ["train", "val"])
def test_what_was_lost_or_cut_is_written_again_and_the_rest_is_left(
    part: str, given_archives: Given, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given_archives.into(out)
    lost, cut, *kept = sorted((out / part).rglob("*.JPEG"))
    before = [path.stat().st_ctime_ns for path in kept]
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    given_archives.into(out)
    assert images(out) == truth()
    assert [path.stat().st_ctime_ns for path in kept] == before


@pytest.mark.parametrize("torn", ["", "{", "[]", "null", '{"archive": 3}', '{"archive": [1, 2], "md5": "x"}'])
def test_without_its_record_it_looks_into_the_archive_again(torn: str, given_archives: Given, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given_archives.into(out)
    wanted = tree(out)
    (out / ".hvdtrain" / "prepared-train.json").write_text(torn)
    before = {path: path.stat().st_ctime_ns for path in out.rglob("*.JPEG")}
    given_archives.into(out)
    assert tree(out) == wanted
    assert {path: path.stat().st_ctime_ns for path in out.rglob("*.JPEG")} == before


def test_a_strange_folder_is_told_before_anything_is_written(given_archives: Given, tmp_path: Path) -> None:
    (tmp_path / "out" / "val" / "cats").mkdir(parents=True)
    with pytest.raises(DataError, match="out/val has the folder cats"):
        given_archives.into(tmp_path / "out")
    assert not (tmp_path / "out" / "train").exists()


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_strange_file_is_told(part: str, given_archives: Given, tmp_path: Path) -> None:
    stranger = tmp_path / "out" / part / "n01440764" / "cat.JPEG"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"miau")
    with pytest.raises(DataError, match=f"out/{part}/n01440764 has . files of .* expected . of .*take out"):
        given_archives.into(tmp_path / "out")
    with pytest.raises(DataError, match=f"out/{part}/n01440764 has . files"):
        given_archives.into(tmp_path / "out")
    assert stranger.read_bytes() == b"miau"
    stranger.unlink()
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


def test_a_hidden_file_is_no_image_and_does_not_matter(given_archives: Given, tmp_path: Path) -> None:
    hidden = tmp_path / "out" / "train" / "n01440764" / ".DS_Store"
    hidden.parent.mkdir(parents=True)
    hidden.write_bytes(b"x")
    given_archives.into(tmp_path / "out")
    before = states(tmp_path / "out")
    given_archives.into(tmp_path / "out")
    assert states(tmp_path / "out") == before


def test_two_at_once_are_refused(given_archives: Given, tmp_path: Path) -> None:
    lock = tmp_path / "out" / ".hvdtrain" / "prepare.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentFault, match="another process is preparing"):
            given_archives.into(tmp_path / "out")
    given_archives.into(tmp_path / "out")


def test_the_record_says_what_is_there(given_archives: Given, tmp_path: Path) -> None:
    given_archives.into(tmp_path / "out")
    record = json.loads((tmp_path / "out" / ".hvdtrain" / "prepared-train.json").read_text())
    assert {wnid: images for wnid, (images, _) in record["classes"].items()} == TRAIN
    assert record["md5"] is None


Usage = namedtuple("Usage", "total used free")


def leave_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))


def test_too_small_a_disk_is_told_before_anything_is_written(
    given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(monkeypatch, 20_000)
    with pytest.raises(EnvironmentFault, match=r"has 0.000 GB free: 0.000 GB are needed .*make room"):
        given_archives.into(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_needs_no_room(given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_archives.into(tmp_path / "out")
    leave_free(monkeypatch, 0)
    given_archives.into(tmp_path / "out")
    (lost,) = (tmp_path / "out" / "val").rglob("*00000003.JPEG")
    lost.unlink()
    with pytest.raises(EnvironmentFault, match="GB are needed"):
        given_archives.into(tmp_path / "out")
    leave_free(monkeypatch, 10_000)
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


def test_both_parts_have_to_fit_on_one_disk(
    given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = sum(len(data) for data in truth().values())
    leave_free(monkeypatch, given_archives.train.stat().st_size + 10_000)
    assert prepare(tmp_path / "alone", train=given_archives.train, check_digests=False) == {"train": 14}
    assert both > 10_000
    with pytest.raises(EnvironmentFault, match="GB are needed"):
        given_archives.into(tmp_path / "out")


FULL_DISK = """
import resource, sys
from pathlib import Path
from hvdtrain.data import prepare as verb
from hvdtrain.errors import EnvironmentFault

out, train, val, devkit = map(Path, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
try:
    verb.prepare(out, train=train, val=val, devkit=devkit, check_digests=False)
except EnvironmentFault as error:
    print(error)
"""


def test_a_file_that_the_system_refuses_ends_it_and_it_can_go_on(given_archives: Given, tmp_path: Path) -> None:
    paths = [str(path) for path in (tmp_path / "out", *dataclasses.astuple(given_archives))]
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, *paths], capture_output=True, text=True, check=True)
    assert f"cannot write to {tmp_path}/out/train: [Errno 27] File too large" in ran.stdout
    assert "the same command goes on" in ran.stdout
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


def test_a_disk_that_fills_up_ends_it_and_it_can_go_on(
    given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = Path.write_bytes, 9

    def until_full(path: Path, data: bytes) -> int:
        nonlocal room
        room -= 1
        return write(path if room >= 0 else Path("/dev/full"), data)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    with pytest.raises(EnvironmentFault, match=r"cannot write to .*No space left on device.*goes on from here"):
        given_archives.into(tmp_path / "out")
    there = images(tmp_path / "out")
    assert there.items() < truth().items()
    assert len(there) == 8  # two classes; the third was not finished
    monkeypatch.setattr(Path, "write_bytes", write)
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


def test_a_folder_that_cannot_be_written_is_told(given_archives: Given, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises((DataError, EnvironmentFault), match=r"cannot .*out"):
        given_archives.into(tmp_path / "out")
