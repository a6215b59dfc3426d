"""Folders -> their table, made once: what it says of every file, and when it is made anew."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hvdtrain.data import scan
from hvdtrain.data.index import Index, load
from hvdtrain.errors import DataError

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def encoded(format: str, height: int = 4, width: int = 6, **options: Any) -> bytes:
    """A picture of noise, so that no part of its bytes can be done without."""
    noise = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer := io.BytesIO(), format, **options)
    return buffer.getvalue()


def picture(path: Path, height: int = 4, width: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()
    path.write_bytes(encoded(FORMATS.get(suffix, suffix[1:]), height, width))
    return path


def measured(folder: Path, content: bytes, name: str = "x.JPEG") -> tuple[int, int, int]:
    """Bytes, height and width that the table has of a file."""
    (folder / "c").mkdir()
    (folder / "c" / name).write_bytes(content)
    found = scan.scan(folder, workers=1)
    assert list(found.names) == [f"c/{name}"]
    return int(found.sizes[0]), int(found.heights[0]), int(found.widths[0])


def test_labels_count_the_classes_in_sorted_order(tmp_path: Path) -> None:
    for name in ("n02/b.JPEG", "n10/z.JPEG", "n02/a.JPEG", "n01/c.JPEG"):
        picture(tmp_path / name)
    found = scan.scan(tmp_path, workers=2)
    assert found.classes == ("n01", "n02", "n10")
    assert list(found.names) == ["n01/c.JPEG", "n02/a.JPEG", "n02/b.JPEG", "n10/z.JPEG"]
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert len(found) == 4
    assert (found.shards, found.shard, found.offsets) == ((), None, None)


def test_sizes_are_bytes_and_height_and_width_of_each_image_in_order(tmp_path: Path) -> None:
    files = [picture(tmp_path / "c" / f"{i:02}.png", height=1 + i, width=100 - i) for i in range(20)]
    found = scan.scan(tmp_path, workers=4)
    assert found.heights.tolist() == list(range(1, 21))
    assert found.widths.tolist() == list(range(100, 80, -1))
    assert found.sizes.tolist() == [file.stat().st_size for file in files]
    assert (found.heights.dtype, found.widths.dtype) == (np.int32, np.int32)
    assert (found.labels.dtype, found.sizes.dtype) == (np.int64, np.int64)
    assert not found.unreadable.any()


def test_an_image_that_its_exif_turns_keeps_its_stored_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    assert measured(tmp_path, encoded("JPEG", 4, 6, exif=exif))[1:] == (4, 6)


@pytest.mark.parametrize("suffix", [".JPEG", ".jpg", ".jpeg", ".PNG", ".bmp", ".webp"])
def test_every_usual_suffix_counts(suffix: str, tmp_path: Path) -> None:
    picture(tmp_path / "c" / f"a{suffix}")
    found = scan.scan(tmp_path, workers=1)
    assert list(found.names) == [f"c/a{suffix}"]
    assert (found.heights.tolist(), found.widths.tolist()) == ([4], [6])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_the_content_decides_what_an_image_is_not_its_suffix(format: str, tmp_path: Path) -> None:
    content = encoded(format)
    assert measured(tmp_path, content, "x.png") == (len(content), 4, 6)


def test_what_is_no_image_by_its_name_is_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "c" / "a.jpg")
    for name in ("Thumbs.db", "a.gif", "a.jpg.txt", "jpg", ".a.jpg.1.tmp"):
        (tmp_path / "c" / name).write_text("x")
    (tmp_path / "LICENSE.txt").write_text("x")
    picture(tmp_path / "stray.jpg")
    picture(tmp_path / "c" / "below" / "deep.jpg")
    assert list(scan.scan(tmp_path, workers=1).names) == ["c/a.jpg"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "c" / "a.jpg")
    picture(tmp_path / "c" / "._a.jpg")  # as macOS leaves them
    picture(tmp_path / ".cache" / "b.jpg")
    found = scan.scan(tmp_path, workers=1)
    assert (found.classes, list(found.names)) == (("c",), ["c/a.jpg"])


def test_a_class_without_images_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    picture(tmp_path / "b" / "x.jpg")
    found = scan.scan(tmp_path, workers=1)
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [1]


def test_links_to_images_and_to_classes_count_as_what_they_point_to(tmp_path: Path) -> None:
    content = picture(tmp_path / "elsewhere" / "a.jpg", 8, 9).read_bytes()
    (tmp_path / "root" / "c").mkdir(parents=True)
    (tmp_path / "root" / "c" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "root" / "d").symlink_to(tmp_path / "elsewhere")
    found = scan.scan(tmp_path / "root", workers=1)
    assert list(found.names) == ["c/link.jpg", "d/a.jpg"]
    assert found.sizes.tolist() == [len(content)] * 2
    assert found.heights.tolist() == [8, 8]


def test_any_name_that_a_file_can_have_is_found(tmp_path: Path) -> None:
    names = ["c d/a b.jpg", "c d/Bär.jpg", "c d/new\nline.jpg", os.fsdecode(b"\xff/\xfe.jpg")]
    for name in names:
        picture(tmp_path / name)
    found = scan.scan(tmp_path, workers=1)
    assert list(found.names) == sorted(names)
    assert not found.unreadable.any()


def varied(root: Path) -> None:
    for i in range(9):
        picture(root / str(i % 3) / f"{i}.png", height=i + 1)
    (root / "1" / "bad.png").write_bytes(b"no picture")


@pytest.mark.parametrize("workers", [0, 1, 3, 20])
@pytest.mark.parametrize("chunk", [1, 4, 500])
def test_any_number_of_workers_gives_the_same_table(
    workers: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied(tmp_path)
    monkeypatch.setattr(scan, "CHUNK", chunk)
    found = scan.scan(tmp_path, workers=workers)
    assert found.heights.tolist() == [1, 4, 7, 2, 5, 8, 0, 3, 6, 9]
    assert found.labels.tolist() == [0] * 3 + [1] * 4 + [2] * 3


def test_processes_find_what_threads_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    varied(tmp_path)
    monkeypatch.setattr(scan, "CHUNK", 3)
    by_threads = scan.scan(tmp_path, workers=2)
    monkeypatch.setattr(scan, "WORTH_PROCESSES", 1)
    seen: list[bool] = []
    real = scan.parallel

    def watched(*arguments: Any, processes: bool, **options: Any) -> Any:
        seen.append(processes)
        return real(*arguments, processes=processes, **options)

    monkeypatch.setattr(scan, "parallel", watched)
    by_processes = scan.scan(tmp_path, workers=2)
    assert seen == [True]
    assert by_processes.digest == by_threads.digest
    assert by_processes.heights.tolist() == [1, 4, 7, 2, 5, 8, 0, 3, 6, 9]


LARGE_JPEG, LARGE_PNG = encoded("JPEG", 120, 160), encoded("PNG", 120, 160)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no picture", id="text"),
        pytest.param(b"<!DOCTYPE html>" + bytes(30_000), id="a page that says it is gone"),
        pytest.param(b"\xff\xd8\xff\xe0", id="header"),
        pytest.param(LARGE_JPEG[:700], id="JPEG without pixels"),
        pytest.param(LARGE_JPEG[: len(LARGE_JPEG) // 2], id="half a JPEG"),
        pytest.param(LARGE_JPEG[:-2], id="JPEG without end"),
        pytest.param(LARGE_JPEG[:-1], id="JPEG without last byte"),
        pytest.param(LARGE_PNG[: len(LARGE_PNG) // 2], id="half a PNG"),
        pytest.param(LARGE_PNG[:33], id="PNG header"),
        pytest.param(encoded("BMP", 120, 160)[:-1000], id="cut BMP"),
        pytest.param(encoded("WEBP", 120, 160)[:-100], id="cut WEBP"),
        pytest.param(encoded("GIF"), id="GIF"),
        pytest.param(encoded("PPM"), id="PPM"),
    ],
)
def test_what_cannot_be_decoded_has_no_height(content: bytes, tmp_path: Path) -> None:
    assert measured(tmp_path, content) == (len(content), 0, 0)


@pytest.mark.parametrize("garbage", [b"\0", b"\0" * 5000, b"\r\n", b"<!-- -->", LARGE_JPEG[:100]])
def test_garbage_after_the_end_of_a_jpeg_does_no_harm(garbage: bytes, tmp_path: Path) -> None:
    content = LARGE_JPEG + garbage
    assert measured(tmp_path, content) == (len(content), 120, 160)


def test_garbage_after_the_end_of_a_png_does_no_harm(tmp_path: Path) -> None:
    assert measured(tmp_path, LARGE_PNG + b"more")[1:] == (120, 160)


def test_a_header_may_be_longer_than_what_is_read_first(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "d" * 60_000  # description
    assert measured(tmp_path, encoded("JPEG", 120, 160, exif=exif))[1:] == (120, 160)


def test_what_has_an_images_name_and_is_no_file_has_no_height(tmp_path: Path) -> None:
    picture(tmp_path / "c" / "a.JPEG")
    (tmp_path / "c" / "dangling.JPEG").symlink_to(tmp_path / "nowhere")
    (tmp_path / "c" / "folder.JPEG").mkdir()
    (tmp_path / "c" / "loop.JPEG").symlink_to(tmp_path / "c" / "loop.JPEG")
    os.mkfifo(tmp_path / "c" / "pipe.JPEG")
    found = scan.scan(tmp_path, workers=1)
    assert [Path(name).stem for name in found.names] == ["a", "dangling", "folder", "loop", "pipe"]
    assert found.heights.tolist() == [4, 0, 0, 0, 0]
    assert found.widths.tolist() == [6, 0, 0, 0, 0]


def test_what_is_no_file_has_no_bytes(tmp_path: Path) -> None:
    """How many a folder has is up to the file system, and would make two copies of one data set differ."""
    (tmp_path / "c" / "folder.JPEG").mkdir(parents=True)
    assert scan.scan(tmp_path, workers=1).sizes.tolist() == [0]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damages
@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])  # libtiff prints to stderr past everyone
def test_an_image_damaged_anyhow_has_a_size_or_none(format: str, tmp_path: Path) -> None:
    whole, random = encoded(format, 13, 17), np.random.default_rng(0)
    (tmp_path / "c").mkdir()
    for i in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, min(len(damaged), 300), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        length = random.integers(1, len(damaged)) if i % 5 == 0 else len(damaged)
        (tmp_path / "c" / f"{i}.png").write_bytes(damaged[:length])
    found = scan.scan(tmp_path, workers=1)
    assert ((found.heights > 0) == (found.widths > 0)).all()
    assert 0 < found.unreadable.sum() < 300


class Find:
    """find() with a count of the images it looked at."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.cache, self.looked_at = root, root.parent / "cache", 0
        real = scan._measure_file

        def counted(path: str) -> tuple[int, int, int]:
            self.looked_at += 1
            return real(path)

        monkeypatch.setattr(scan, "_measure_file", counted)
        monkeypatch.setattr(scan, "THREADS_PER_PROCESS", 1)  # so that counting needs no lock

    def __call__(self) -> Index:
        self.looked_at = 0
        return scan.find(self.root, cache=self.cache, workers=1)


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Two classes of two images. Their folders are old, so that any change to them has another time."""
    root = tmp_path / "data" / "train"
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        picture(root / name)
    for folder in (root, root / "a", root / "b"):
        os.utime(folder, (10**9, 10**9))
    return Find(root, monkeypatch)


def test_images_are_looked_at_once(find: Find) -> None:
    first = find()
    assert find.looked_at == 4
    again = find()
    assert find.looked_at == 0
    assert again.digest == first.digest
    assert again.names == first.names


def test_the_table_is_kept_beside_the_data(find: Find) -> None:
    first = find()
    beside = find.root.parent / ".hvdtrain"
    assert [path.name for path in beside.iterdir()] == ["train.npz"]
    assert not find.cache.exists()
    kept, fingerprint = load(beside / "train.npz")
    assert kept.digest == first.digest
    assert fingerprint == scan.fingerprint(find.root)


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda root: picture(root / "b" / "0.jpg"),
    "removed": lambda root: (root / "b" / "2.jpg").unlink(),
    "renamed": lambda root: (root / "b" / "2.jpg").rename(root / "b" / "3.jpg"),
    "moved to another class": lambda root: (root / "a" / "2.jpg").rename(root / "b" / "3.jpg"),
    "class added": lambda root: (root / "c").mkdir(),
    "class renamed": lambda root: (root / "b").rename(root / "c"),
    "replaced by another": lambda root: picture(root / "new.jpg", 8, 8).replace(root / "b" / "1.jpg"),
    "rewritten in place": lambda root: (root / "b" / "1.jpg").write_bytes(encoded("JPEG", 8, 8)),
    "cut in place": lambda root: os.truncate(root / "a" / "1.jpg", 100),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_files_is_noticed(change: str, find: Find) -> None:
    before = find().digest
    CHANGES[change](find.root)
    after = find()
    assert find.looked_at == len(after)
    assert after.digest != before
    assert after.digest == scan.scan(find.root, workers=1).digest
    find()
    assert find.looked_at == 0


def test_a_file_that_other_bytes_of_the_same_length_replace_is_not_looked_at(find: Find) -> None:
    """What is promised: names, and sizes here and there. To look into every file is what the table is there to save."""
    find()
    file = find.root / "a" / "1.jpg"
    with file.open("r+b") as rewritten:
        rewritten.write(bytes(file.stat().st_size))
    find()
    assert find.looked_at == 0


def test_of_many_files_only_some_are_asked_for_their_size(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SPOT_CHECKS", 2)
    find()
    (find.root / "a" / "2.jpg").write_bytes(encoded("JPEG", 8, 8))  # between two that are asked for
    find()
    assert find.looked_at == 0
    (find.root / "b" / "1.jpg").write_bytes(encoded("JPEG", 8, 8))
    assert find().heights.tolist() == [4, 8, 8, 4]


def test_a_file_that_was_unreadable_and_still_is_does_not_make_the_table_old(find: Find) -> None:
    (find.root / "a" / "bad.jpg").write_text("no picture")
    (find.root / "a" / "gone.jpg").symlink_to("nowhere")
    (find.root / "b" / "empty.jpg").touch()
    assert find().heights.tolist() == [4, 4, 0, 0, 4, 4, 0]
    find()
    assert find.looked_at == 0


def test_a_link_that_has_found_its_file_is_noticed(find: Find) -> None:
    (find.root / "a" / "3.jpg").symlink_to(find.root.parent / "late.jpg")
    assert find().heights.tolist() == [4, 4, 0, 4, 4]
    picture(find.root.parent / "late.jpg", 7)
    assert find().heights.tolist() == [4, 4, 7, 4, 4]


def damaged(file: Path, damage: str) -> None:
    if damage == "cut":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        content = bytearray(file.read_bytes())
        content[content.index(b"PK\1\2") + 10] ^= 0xFF  # how the first column is compressed
        file.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "empty", "a byte of the directory"])
def test_a_torn_table_is_made_anew(damage: str, find: Find, caplog: pytest.LogCaptureFixture) -> None:
    first = find()
    kept = find.root.parent / ".hvdtrain" / "train.npz"
    damaged(kept, damage)
    assert find().digest == first.digest
    assert find.looked_at == 4
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{kept} is no index: ")
    assert warning.endswith("; making it anew")
    caplog.clear()
    find()
    assert find.looked_at == 0
    assert caplog.messages == []


def test_data_that_cannot_be_written_has_its_table_in_the_cache(find: Find, caplog: pytest.LogCaptureFixture) -> None:
    (find.root.parent / ".hvdtrain").write_text("in the way of the folder")
    first = find()
    assert find.looked_at == 4
    (folder,) = find.cache.iterdir()
    assert [path.name for path in folder.iterdir()] == ["train.npz"]
    assert find().digest == first.digest
    assert find.looked_at == 0
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_data_sets_of_one_name_do_not_share_a_table_in_the_cache(find: Find, tmp_path: Path) -> None:
    other = tmp_path / "other" / "train"
    picture(other / "z" / "1.jpg")
    for root in (find.root, other):
        (root.parent / ".hvdtrain").write_text("in the way of the folder")
    assert find().classes == ("a", "b")
    assert scan.find(other, cache=find.cache, workers=1).classes == ("z",)
    assert len(list(find.cache.iterdir())) == 2
    find()
    assert find.looked_at == 0


def test_a_link_to_a_data_set_has_its_table_in_the_cache(find: Find, tmp_path: Path) -> None:
    (find.root.parent / ".hvdtrain").write_text("in the way of the folder")
    find()
    (tmp_path / "link").symlink_to(find.root.parent)
    scan.find(tmp_path / "link" / "train", cache=find.cache, workers=1)
    assert find.looked_at == 4


@pytest.mark.parametrize("cache", ["file/cache", "x" * 300])
def test_a_table_that_can_be_kept_nowhere_is_made_all_the_same(
    cache: str, find: Find, caplog: pytest.LogCaptureFixture
) -> None:
    """A name of 300 letters stands for whatever cannot even be asked for, as a file in another's home."""
    (find.root.parent / ".hvdtrain").write_text("in the way of the folder")
    (find.root.parent / "file").write_text("in the way of the cache")
    find.cache = find.root.parent / cache
    for _ in range(2):
        assert len(find()) == 4
        assert find.looked_at == 4
        (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert warning.startswith("the index cannot be kept, it will be made anew by every run: ")
        caplog.clear()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    message = f"no folder {tmp_path}/none: expected {tmp_path}/none/<class>/.* → --data.dir DIR"
    with pytest.raises(DataError, match=message):
        scan.find(tmp_path / "none", cache=tmp_path / "cache", workers=1)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("x")
    with pytest.raises(DataError, match=f"no folder {tmp_path}/train: "):
        scan.find(tmp_path / "train", cache=tmp_path / "cache", workers=1)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "train" / "c").mkdir(parents=True)
    with pytest.raises(DataError, match=f"no images in {tmp_path}/train: .*data.dir"):
        scan.find(tmp_path / "train", cache=tmp_path / "cache", workers=1)
    assert not (tmp_path / ".hvdtrain").exists()
