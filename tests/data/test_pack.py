"""What pack writes is what the folders had, to us and to the webdataset package; stopped, gone on with, and smaller."""

import gc
import io
import json
import os
import shutil
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from hvdtrain.data import pack as packing
from hvdtrain.data import scan, shards
from hvdtrain.data.index import Index, load
from hvdtrain.errors import DataError, EnvironmentFault
from tests.data.test_scan import picture
from tests.data.test_shards import JPEG, image_bytes, tar_of

SHARD_BYTES = 4000  # some images


def pack(root: Path, *, shard_bytes: int = SHARD_BYTES, max_side: int | None = None, workers: int = 2) -> int:
    """root/folders -> root/packed"""
    return packing.pack(
        root / "folders",
        root / "packed",
        cache=root / "cache",
        workers=workers,
        shard_bytes=shard_bytes,
        max_side=max_side,
    )


def tables(root: Path, part: str = "train") -> tuple[Index, Index]:
    """Of the folders and of what was packed of them."""
    return scan.scan(root / "folders" / part, workers=1), scan.scan(root / "packed" / part, workers=1)


def members(tar: Path) -> list[str]:
    with tarfile.open(tar) as file:
        return file.getnames()


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    """When each shard was written, and what it holds."""
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in shards.files(root)}


def contents(shards: dict[str, tuple[int, bytes]]) -> dict[str, bytes]:
    return {name: content for name, (_, content) in shards.items()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """25 training images of four classes, one of them empty, with odd names and some that are none; 5 to validate."""
    train = tmp_path / "folders" / "train"
    for i in range(21):
        picture(train / f"n{i % 3}" / f"image {i:02}.JPEG", 10 + i, 50 - i)
    picture(train / "n2" / "Bär.png")
    picture(train / "n2" / os.fsdecode(b"\xff.jpg"))
    (train / "n1" / "empty.JPEG").touch()
    (train / "n1" / "text.JPEG").write_text("no picture")
    (train / "n9").mkdir()
    for i in range(5):
        picture(tmp_path / "folders" / "val" / f"n{i % 2}" / f"{i}.JPEG", 20, 20)
    return tmp_path


def test_shards_have_the_table_of_the_folders(data: Path) -> None:
    assert pack(data) == 30
    for part, images in (("train", 25), ("val", 5)):
        folders, packed = tables(data, part)
        assert packed.digest == folders.digest
        assert packed.classes == folders.classes
        assert list(packed.names) == list(folders.names)
        assert packed.labels.tolist() == folders.labels.tolist()
        assert len(packed) == images
    assert len(packed.shards) > 1


def test_the_bytes_at_an_offset_are_the_files(data: Path) -> None:
    pack(data)
    _, packed = tables(data)
    for row, name in enumerate(packed.names):
        assert image_bytes(data / "packed" / "train", packed, row) == (data / "folders/train" / name).read_bytes()


def test_a_next_shard_begins_at_its_size(data: Path) -> None:
    pack(data)
    shard_files = shards.files(data / "packed" / "train")
    assert [file.name for file in shard_files] == [f"train-{number:06}.tar" for number in range(len(shard_files))]
    _, packed = tables(data)
    held = np.bincount(packed.shard, weights=packed.sizes)
    assert held.sum() == packed.sizes.sum()
    assert held.max() < SHARD_BYTES + packed.sizes.max()
    assert len(held) == -(-packed.sizes.sum() // SHARD_BYTES)


def test_one_image_larger_than_a_shard_has_one_of_its_own(data: Path) -> None:
    pack(data, shard_bytes=1)
    folders, packed = tables(data)
    assert packed.digest == folders.digest
    assert len(packed.shards) == (packed.sizes > 0).sum()  # one without bytes lies beside another


def test_images_lie_in_a_random_order(data: Path) -> None:
    """Those who read one after the other, as the webdataset package does, should not see class after class."""
    pack(data, shard_bytes=10**6)
    (shard,) = shards.files(data / "packed" / "train")
    folders = [name.split("/")[0] for name in members(shard)[::2]]
    assert sorted(folders) != folders
    assert sum(a != b for a, b in pairwise(folders)) > 8


def test_find_takes_shards_and_notices_their_changes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(data)
    root, looked = data / "packed" / "train", []
    real = shards.scan
    monkeypatch.setattr(shards, "scan", lambda *a, **k: looked.append(a) or real(*a, **k))
    assert scan.find(root, cache=data / "cache", workers=1).digest == tables(data)[0].digest
    assert len(looked) == 1, "of tables(); pack has kept the other"
    shards.files(root)[-1].unlink()
    assert len(scan.find(root, cache=data / "cache", workers=1)) < 25
    assert len(looked) == 2


def test_another_list_of_classes_is_noticed(data: Path) -> None:
    root = data / "packed" / "train"
    pack(data)
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    assert scan.find(root, cache=data / "cache", workers=1).classes == ("a", "b", "c", "d")


def test_processes_write_and_read_what_threads_do(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(data / "folders" / "val")
    pack(data)
    by_threads = state(data / "packed" / "train")
    shutil.rmtree(data / "packed")
    for module in (packing, shards):
        monkeypatch.setattr(module, "WORTH_PROCESSES", 0)
    pack(data)
    assert contents(state(data / "packed" / "train")) == contents(by_threads)
    kept, _ = load(data / "packed" / ".hvdtrain" / "train.npz")
    assert kept.digest == scan.scan(data / "folders" / "train", workers=1).digest


# What the webdataset package makes of them


def webdataset_samples(root: Path, *, decode: bool = False) -> list[dict[str, Any]]:
    dataset = webdataset.WebDataset([str(file) for file in shards.files(root)], shardshuffle=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the garbage collector
        samples = list(dataset.decode("pil") if decode else dataset)
        del dataset
        gc.collect()
    return samples


def test_webdataset_reads_every_image_once_with_its_label(data: Path) -> None:
    pack(data)
    folders, _ = tables(data)
    samples = webdataset_samples(data / "packed" / "train")
    found = {}
    for sample in samples:
        (suffix,) = {key for key in sample if not key.startswith("__")} - {"cls"}
        found[sample["__key__"], suffix] = (sample[suffix], int(sample["cls"]))
    wanted = {}
    for name, label in zip(folders.names, folders.labels.tolist(), strict=True):
        stem, _, suffix = name.rpartition(".")
        wanted[stem, suffix.lower()] = ((data / "folders/train" / name).read_bytes(), label)
    assert found == wanted
    assert len(samples) == 25


@pytest.mark.parametrize("names", [["c/a.1.jpg", "c/a.2.jpg"], ["c/b.jpg", "c/b.png"]])
def test_names_that_webdataset_cannot_tell_apart_are_refused_or_told_apart(names: list[str], tmp_path: Path) -> None:
    """It takes the first dot of a name for the end of its key, and puts neighbours of one key into one sample."""
    for number, name in enumerate(names):
        picture(tmp_path / "folders" / "train" / name, 10 + number)
    try:
        pack(tmp_path)
    except DataError as error:
        assert any(name in str(error) for name in names)
        return
    samples = webdataset_samples(tmp_path / "packed" / "train")
    assert [int(sample["cls"]) for sample in samples if "cls" in sample] == [0, 0]


def test_dots_in_the_name_of_a_class_do_no_harm(tmp_path: Path) -> None:
    picture(tmp_path / "folders" / "train" / "c.1" / "a.jpg")
    pack(tmp_path)
    (sample,) = webdataset_samples(tmp_path / "packed" / "train")
    assert (sample["__key__"], sample["cls"]) == ("c.1/a", b"0")


def test_webdataset_decodes_our_images(tmp_path: Path) -> None:
    picture(tmp_path / "folders" / "train" / "c" / "a.jpg", 10, 20)
    pack(tmp_path)
    (sample,) = webdataset_samples(tmp_path / "packed" / "train", decode=True)
    assert (sample["__key__"], sample["jpg"].size, sample["cls"]) == ("c/a", (20, 10), 0)


@pytest.mark.parametrize("odd", ["two words", "Möwe", "next\x85line", "a\u2028b", "form\ffeed"])
def test_any_text_may_be_a_class(odd: str, tmp_path: Path) -> None:
    for name in (odd, "z"):
        picture(tmp_path / "folders" / "train" / name / "1.jpg")
    pack(tmp_path)
    folders, packed = tables(tmp_path)
    assert packed.classes == folders.classes == tuple(sorted([odd, "z"]))
    assert packed.digest == folders.digest


def test_a_class_whose_name_is_no_text_is_packed_or_named(tmp_path: Path) -> None:
    picture(tmp_path / "folders" / "train" / os.fsdecode(b"c\xff") / "1.jpg")
    try:
        pack(tmp_path)
    except DataError as error:
        assert "c" in str(error)
    else:
        folders, packed = tables(tmp_path)
        assert packed.digest == folders.digest


# Packing that stops and goes on, and packing smaller


def test_packing_goes_on_where_it_stopped(data: Path) -> None:
    pack(data)
    root = data / "packed" / "train"
    for file in shards.files(root):
        os.utime(file, (10**9, 10**9))
    before = state(root)
    lost = sorted(before)[1]
    (root / lost).unlink()
    (root / f".{lost}.999999.tmp").write_text("what a killed packing leaves")
    assert pack(data) == 30
    after = state(root)
    assert [name for name in before if before[name][0] != after[name][0]] == [lost]
    assert contents(after) == contents(before)


def test_packing_twice_gives_the_same_bytes(data: Path) -> None:
    pack(data)
    first = state(data / "packed" / "train")
    shutil.rmtree(data / "packed")
    pack(data, workers=1)
    second = state(data / "packed" / "train")
    assert contents(first) == contents(second)


@pytest.mark.parametrize("target", ["folders", "elsewhere"])
def test_shards_are_not_put_among_class_folders(data: Path, target: str) -> None:
    (data / "elsewhere" / "train" / "n1").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(DataError, match=f"{data}/{target}/train has the folder n"):
            packing.pack(data / "folders", data / target, cache=data, workers=1, shard_bytes=SHARD_BYTES, max_side=None)
    assert list((data / target).rglob("*.tar")) == []


def test_a_packing_that_failed_leaves_no_shard_that_is_not_whole(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = packing._add, []

    def full_disk(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        written.append(name)
        if len(written) > 12:
            raise OSError(28, "No space left on device")
        real(tar, name, content)

    monkeypatch.setattr(packing, "_add", full_disk)
    with pytest.raises(EnvironmentFault, match=r"cannot write .*No space left on device"):
        pack(data, workers=1)
    left = {path.name for path in (data / "packed" / "train").iterdir()} - {"classes.txt", "packing.json"}
    assert left == {file.name for file in shards.files(data / "packed" / "train")}
    monkeypatch.undo()
    assert pack(data) == 30
    assert tables(data)[1].digest == tables(data)[0].digest


CHANGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "another side": lambda root: {"max_side": 16},
    "another size of shards": lambda root: {"shard_bytes": SHARD_BYTES * 2},
    "other images": lambda root: {"workers": 1} if picture(root / "folders/train/n1/new.jpg") else {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_packing_into_the_same_folder_is_refused(change: str, data: Path) -> None:
    pack(data)
    before = state(data / "packed" / "train")
    with pytest.raises(DataError, match=rf"{data}/packed/train/packing.json has .*: expected .* another folder"):
        pack(data, **CHANGES[change](data))
    assert state(data / "packed" / "train") == before


def test_shards_of_unknown_origin_are_not_added_to(data: Path) -> None:
    tar_of(data / "packed" / "train" / "other.tar", {"c/0.jpg": JPEG})
    with pytest.raises(DataError, match=f"{data}/packed/train has shards of another packing .* another folder"):
        pack(data)


def test_what_is_packed_already_is_refused(data: Path) -> None:
    pack(data)
    with pytest.raises(DataError, match=f"{data}/packed/train is packed already"):
        packing.pack(
            data / "packed", data / "again", cache=data / "cache", workers=1, shard_bytes=SHARD_BYTES, max_side=None
        )


def test_neither_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path}/folders has neither train/ nor val/: expected "):
        pack(tmp_path)


def test_one_part_alone_is_packed(data: Path) -> None:
    shutil.rmtree(data / "folders" / "train")
    assert pack(data) == 5
    assert not (data / "packed" / "train").exists()


def test_how_shards_were_packed_lies_beside_them(data: Path) -> None:
    pack(data)
    packed = json.loads((data / "packed" / "train" / "packing.json").read_text())
    assert packed == {"source": tables(data)[0].digest, "shard_bytes": SHARD_BYTES, "max_side": None}
    assert (data / "packed" / "train" / "classes.txt").read_text() == "n0\nn1\nn2\nn9\n"


def test_no_side_is_longer_than_the_longest_and_the_aspect_is_kept(data: Path) -> None:
    pack(data, max_side=30)
    folders, packed = tables(data)
    assert list(packed.names) == list(folders.names)
    assert packed.labels.tolist() == folders.labels.tolist()
    shrunk = 0
    for row in range(len(folders)):
        before = folders.heights[row], folders.widths[row]
        after = packed.heights[row], packed.widths[row]
        if max(before) <= 30:
            assert after == before
            continue
        shrunk += 1
        assert max(after) == 30
        scale = 30 / max(before)
        assert abs(after[0] - before[0] * scale) < 1
        assert abs(after[1] - before[1] * scale) < 1
    assert shrunk == 20


def test_what_is_small_enough_or_no_image_keeps_its_bytes(data: Path) -> None:
    pack(data, max_side=30)
    folders, packed = tables(data)
    same = 0
    for row, name in enumerate(packed.names):
        if max(folders.heights[row], folders.widths[row]) <= 30:
            assert image_bytes(data / "packed/train", packed, row) == (data / "folders/train" / name).read_bytes()
            same += 1
    assert same == 5
    assert packed.unreadable.sum() == folders.unreadable.sum() == 2


def test_a_shrunk_image_is_a_jpeg_of_the_same_picture(tmp_path: Path) -> None:
    """Left half dark, right half bright, with an alpha channel that a JPEG has not."""
    image = Image.new("RGBA", (200, 100), (20, 40, 60, 255))
    image.paste((200, 180, 160, 255), (100, 0, 200, 100))
    (tmp_path / "folders/train/c").mkdir(parents=True)
    image.save(tmp_path / "folders/train/c/a.png")
    pack(tmp_path, max_side=50)
    _, packed = tables(tmp_path)
    shrunk = Image.open(io.BytesIO(image_bytes(tmp_path / "packed/train", packed, 0)))
    assert (shrunk.format, shrunk.mode, shrunk.size) == ("JPEG", "RGB", (50, 25))
    for place, colour in (((10, 12), (20, 40, 60)), ((40, 12), (200, 180, 160))):
        got = shrunk.getpixel(place)
        assert isinstance(got, tuple)
        assert max(abs(a - b) for a, b in zip(got, colour, strict=True)) <= 4


def test_what_has_an_images_name_and_is_no_file_keeps_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "folders" / "train" / "c"
    picture(folder / "a.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere")
    (folder / "folder.jpg").mkdir()
    pack(tmp_path)
    folders, packed = tables(tmp_path)
    assert list(packed.names) == list(folders.names) == ["c/a.jpg", "c/dangling.jpg", "c/folder.jpg"]
    assert packed.heights.tolist() == [4, 0, 0]
    assert packed.digest == folders.digest


def test_a_pipe_does_not_hold_up_the_packing(tmp_path: Path) -> None:
    pipe = tmp_path / "folders" / "train" / "c" / "pipe.jpg"
    picture(pipe.with_name("a.jpg"))
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        packed = pool.submit(pack, tmp_path)
        try:
            assert packed.result(timeout=5) == 2
        finally:
            with suppress(OSError):  # whoever reads the pipe now reads its end
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def test_every_image_is_in_one_shard_once(data: Path) -> None:
    pack(data)
    found = Counter(name for file in shards.files(data / "packed" / "train") for name in members(file))
    images = [name for name in found if not name.endswith(".cls")]
    assert len(images) == 25
    assert set(found.values()) == {1}
    assert {Path(name).with_suffix(".cls").as_posix() for name in images} == set(found) - set(images)
