"""Bytes of images from folders and from shards: the right ones, from many files, and none where there are none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvdtrain.data import pack, scan
from hvdtrain.data.index import Index
from hvdtrain.data.storage import Folders, Shards, Storage, storage
from tests.data.test_scan import picture
from tests.data.test_shards import tar_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 images in folders/train and, in some shards, in packed/train. One has no bytes."""
    for i in range(17):
        picture(tmp_path / "folders" / "train" / f"n{i % 3}" / f"image {i:02}.JPEG", 10 + i, 30)
    picture(tmp_path / "folders" / "train" / "n1" / "Bär.png")
    picture(tmp_path / "folders" / "train" / "n1" / os.fsdecode(b"\xff.jpg"))
    (tmp_path / "folders" / "train" / "n2" / "empty.jpg").touch()
    pack.pack(
        tmp_path / "folders",
        tmp_path / "packed",
        cache=tmp_path / "cache",
        workers=1,
        shard_bytes=4000,
        max_side=None,
    )
    return tmp_path


def opened(data: Path, kind: str) -> tuple[Storage, Index]:
    root = data / kind / "train"
    table = scan.scan(root, workers=1)
    return storage(root, table, threads=3), table


def contents(data: Path, table: Index) -> list[bytes]:
    return [(data / "folders" / "train" / name).read_bytes() for name in table.names]


def test_the_index_says_what_the_storage_is(data: Path) -> None:
    folders, _ = opened(data, "folders")
    packed, table = opened(data, "packed")
    assert (type(folders), folders.by_name) == (Folders, True)
    assert (type(packed), packed.by_name) == (Shards, False)
    assert len(table.shards) > 2


def test_folders_fetch_the_names_of_the_files(data: Path) -> None:
    stored, table = opened(data, "folders")
    rows = np.array([5, 0, 19, 5, 11])
    fetched = stored.fetch(rows)()
    assert {name.dtype for name in fetched} == {np.dtype(np.uint8)}
    assert [Path(os.fsdecode(name.tobytes())).read_bytes() for name in fetched] == [
        contents(data, table)[row] for row in rows
    ]


def test_shards_fetch_the_bytes_of_the_rows_in_their_order(data: Path) -> None:
    stored, table = opened(data, "packed")
    rows = np.array([5, 0, 19, 5, 11, *range(20)])
    fetched = stored.fetch(rows)()
    assert {part.dtype for part in fetched} == {np.dtype(np.uint8)}
    assert [part.tobytes() for part in fetched] == [contents(data, table)[row] for row in rows]


def test_many_batches_may_be_fetched_before_the_first_is_waited_for(data: Path) -> None:
    stored, table = opened(data, "packed")
    random = np.random.default_rng(0)
    batches = [random.integers(0, 20, 8) for _ in range(50)]
    waiting = [stored.fetch(rows) for rows in batches]
    wanted = contents(data, table)
    for rows, wait in reversed(list(zip(batches, waiting, strict=True))):
        assert [part.tobytes() for part in wait()] == [wanted[row] for row in rows]


def test_nothing_is_fetched_for_no_rows(data: Path) -> None:
    for kind in ("folders", "packed"):
        assert opened(data, kind)[0].fetch(np.zeros(0, np.int64))() == []


def test_places_are_for_people(data: Path) -> None:
    folders, table = opened(data, "folders")
    assert folders.place(0) == f"{data}/folders/train/n0/image 00.JPEG"
    packed, table = opened(data, "packed")
    assert table.shard is not None
    assert packed.place(0) == f"{data}/packed/train/train-{table.shard[0]:06}.tar:n0/image 00.JPEG"


def test_a_file_that_has_gone_keeps_its_name(data: Path) -> None:
    stored, _ = opened(data, "folders")
    (data / "folders/train/n0/image 00.JPEG").unlink()
    (name,) = stored.fetch(np.array([0]))()
    assert os.fsdecode(name.tobytes()) == stored.place(0), "the decoder will see that it has gone"


def test_images_of_a_shard_that_has_gone_come_as_no_bytes(data: Path) -> None:
    stored, table = opened(data, "packed")
    (data / "packed/train" / table.shards[1]).unlink()
    assert table.shard is not None
    rows = np.arange(20)
    for row, part in zip(rows, stored.fetch(rows)(), strict=True):
        if table.shard[row] == 1:
            assert part.size == 0
        else:
            assert part.tobytes() == contents(data, table)[row]
    assert (table.shard == 1).any()


def test_a_shard_that_comes_back_is_read(data: Path) -> None:
    """A network disk may be away for a moment."""
    stored, table = opened(data, "packed")
    root = data / "packed" / "train"
    root.rename(data / "away")
    assert {part.size for part in stored.fetch(np.arange(20))()} == {0}
    (data / "away").rename(root)
    assert [part.tobytes() for part in stored.fetch(np.arange(20))()] == contents(data, table)


def test_an_image_that_lies_behind_the_end_of_its_shard_is_not_whole(data: Path) -> None:
    stored, table = opened(data, "packed")
    assert table.offsets is not None
    row = int(np.argmax(table.offsets))
    assert table.shard is not None
    os.truncate(data / "packed/train" / table.shards[table.shard[row]], table.offsets[row])
    (part,) = stored.fetch(np.array([row]))()
    assert part.size == 0


def test_zero_threads_are_one(data: Path) -> None:
    root = data / "packed" / "train"
    table = scan.scan(root, workers=1)
    stored = storage(root, table, threads=0)
    assert [part.tobytes() for part in stored.fetch(np.arange(20))()] == contents(data, table)


READ_ALL = """
import resource, sys
from pathlib import Path
import numpy as np
from hvdtrain.data import scan
from hvdtrain.data.storage import storage

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
opened = []
for root in map(Path, sys.argv[1:]):
    table = scan.scan(root, workers=1)
    opened.append((storage(root, table, threads=4), table))
for stored, table in opened:
    got = stored.fetch(np.arange(len(table)))()
    print(sum(part.tobytes() == table.names[row].encode() for row, part in enumerate(got)))
"""


def many_shards(root: Path) -> str:
    """300 shards, each of one image, which holds its name."""
    for i in range(300):
        tar_of(root / f"{i:03}.tar", {f"c/{i}.jpg": f"c/{i}.jpg".encode()})
    return str(root)


def read_all(*roots: str) -> list[str]:
    command = [sys.executable, "-c", READ_ALL, *roots]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_more_shards_than_a_process_may_open_by_default_are_read(tmp_path: Path) -> None:
    assert read_all(many_shards(tmp_path / "train")) == ["300"]


def test_many_shards_of_two_parts_are_read(tmp_path: Path) -> None:
    """What comes as no bytes is taken for an image that cannot be decoded, and is left out of the run."""
    assert read_all(many_shards(tmp_path / "train"), many_shards(tmp_path / "val")) == ["300", "300"]
