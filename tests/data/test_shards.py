"""Tar shards of whatever origin: their table, their classes, and damage that is named."""

import io
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import webdataset

from hvdtrain.data import scan
from hvdtrain.data.index import Index
from hvdtrain.errors import DataError
from tests.data.test_scan import encoded


def image_bytes(root: Path, table: Index, row: int) -> bytes:
    assert table.shard is not None
    assert table.offsets is not None
    content = (root / table.shards[table.shard[row]]).read_bytes()
    return content[table.offsets[row] : table.offsets[row] + table.sizes[row]]


def tar_of(path: Path, content: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_shards_of_webdatasets_own_writer_are_indexed(tmp_path: Path) -> None:
    wanted = {}
    with webdataset.ShardWriter(str(tmp_path / "part-%03d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(10):
            content = encoded("JPEG", 10 + i, 20)
            writer.write({"__key__": f"{i:06}", "jpg": content, "cls": i * 7 % 5})
            wanted[f"{i:06}.jpg"] = (i * 7 % 5, 10 + i, content)
    found = scan.scan(tmp_path, workers=2)
    assert found.classes == ("0", "1", "2", "3", "4")
    assert found.shards == ("part-000.tar", "part-001.tar", "part-002.tar")
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    rows = {
        name: (int(found.labels[row]), int(found.heights[row]), image_bytes(tmp_path, found, row))
        for row, name in enumerate(found.names)
    }
    assert rows == wanted


def test_samples_may_have_more_than_an_image_and_a_label(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        for i in range(3):
            writer.write({"__key__": str(i), "jpg": encoded("JPEG"), "cls": 2 - i, "json": {"i": i}, "txt": "a word"})
    found = scan.scan(tmp_path, workers=1)
    assert list(found.names) == ["2.jpg", "1.jpg", "0.jpg"]
    assert found.labels.tolist() == [0, 1, 2]


# Which class an image has

JPEG = encoded("JPEG")


def test_names_of_classes_come_from_their_list(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"0.jpg": JPEG, "0.cls": b"2", "1.jpg": JPEG, "1.cls": b"0\n"})
    (tmp_path / "classes.txt").write_text("cat\ndog\nMöwe 3\n")
    found = scan.scan(tmp_path, workers=1)
    assert found.classes == ("cat", "dog", "Möwe 3")
    assert (list(found.names), found.labels.tolist()) == (["1.jpg", "0.jpg"], [0, 2])


def test_without_a_list_folders_are_the_classes(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"n2/0.jpg": JPEG, "n1/1.jpg": JPEG})
    tar_of(tmp_path / "b.tar", {"n3/0.jpg": JPEG, "n1/0.jpg": JPEG})
    found = scan.scan(tmp_path, workers=1)
    assert found.classes == ("n1", "n2", "n3")
    assert list(found.names) == ["n1/0.jpg", "n1/1.jpg", "n2/0.jpg", "n3/0.jpg"]
    assert found.labels.tolist() == [0, 0, 1, 2]
    assert found.shard is not None
    assert found.shard.tolist() == [1, 0, 0, 1]


def test_a_list_gives_folders_their_numbers(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"n2/0.jpg": JPEG, "n1/1.jpg": JPEG})
    (tmp_path / "classes.txt").write_text("n2\nempty\nn1\n")
    assert scan.scan(tmp_path, workers=1).labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        (
            {"0.jpg": JPEG, "0.cls": b"2"},
            "a\nb\n",
            r"0\.jpg in the shards of .* has label 2: expected one of 2",
        ),
        ({"0.jpg": JPEG, "0.cls": b"-1"}, None, r"0\.jpg in the shards of .* has label -1: expected one of 0 classes"),
        ({"0.jpg": JPEG, "0.cls": b"0", "1.jpg": JPEG}, None, r"1\.jpg in the shards of .* has no \.cls and no known"),
        (
            {"x/0.jpg": JPEG},
            "a\nb\n",
            r"x/0\.jpg in the shards of .* has no \.cls and no known folder: expected one",
        ),
        ({"0.jpg": JPEG, "0.cls": b"cat"}, None, r"a\.tar is no tar shard: .*cat"),
        ({"0.jpg": JPEG, "0.cls": b""}, None, r"a\.tar is no tar shard: "),
        ({"0.cls": b"0", "0.txt": b"x"}, None, "no images in the shards of .*: expected members such as"),
        ({}, None, "no images in the shards of "),
    ],
)
def test_a_sample_that_says_nothing_of_its_class_is_named(
    content: dict[str, bytes], classes: str | None, message: str, tmp_path: Path
) -> None:
    tar_of(tmp_path / "data" / "a.tar", content)
    if classes:
        (tmp_path / "data" / "classes.txt").write_text(classes)
    with pytest.raises(DataError, match=message):
        scan.find(tmp_path / "data", cache=tmp_path / "cache", workers=1)


def test_a_list_of_classes_that_is_no_text_is_named(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"0.jpg": JPEG, "0.cls": b"0"})
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x80\n\xc3")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/classes.txt")):
        scan.scan(tmp_path, workers=1)


# Shards that are damaged


@pytest.mark.parametrize("content", [b"", b"no tar file", bytes(100), JPEG])
def test_what_is_no_tar_file_is_named(content: bytes, tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"c/0.jpg": JPEG})
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path}/b.tar is no tar shard: "):
        scan.scan(tmp_path, workers=2)


def test_a_compressed_shard_is_named(tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "a"), "gztar", tmp_path)
    (tmp_path / "a.tar.gz").rename(tmp_path / "a.tar")
    with pytest.raises(DataError, match=f"{tmp_path}/a.tar is no tar shard: "):
        scan.scan(tmp_path, workers=1)


def test_a_folder_named_like_a_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path}/a.tar is no tar shard: "):
        scan.scan(tmp_path, workers=1)


def three_members(tmp_path: Path) -> tuple[Path, bytes, list[int], int]:
    """A shard of three images, its bytes, where its members begin, where the last ends."""
    file = tar_of(tmp_path / "a.tar", {f"c/{i}.jpg": encoded("JPEG", 10 + i) for i in range(3)})
    with tarfile.open(file) as tar:
        begins = [member.offset for member in tar]
        last = tar.getmembers()[-1]
    return file, file.read_bytes(), begins, last.offset_data + last.size


def test_a_shard_cut_inside_an_image_is_named(tmp_path: Path) -> None:
    file, whole, begins, end = three_members(tmp_path)
    for length in (begins[1] - 300, begins[2] + 600, end - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{file} is (no tar shard|cut off)"):
            scan.scan(tmp_path, workers=1)


def test_a_shard_cut_between_two_images_is_named(tmp_path: Path) -> None:
    """It would be taken for a shorter one, and its other images be missing from every epoch without a word."""
    file, whole, begins, _ = three_members(tmp_path)
    for length in (begins[1], begins[2], begins[2] + 100):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{file} is (no tar shard|cut off)"):
            scan.scan(tmp_path, workers=1)


def test_a_shard_with_a_damaged_header_inside_is_named(tmp_path: Path) -> None:
    file, whole, begins, _ = three_members(tmp_path)
    damaged = bytearray(whole)
    damaged[begins[1] + 3] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=f"{file} is cut off or damaged at byte {begins[1]}"):
        scan.scan(tmp_path, workers=1)


def test_an_image_in_a_shard_that_cannot_be_decoded_has_no_height(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"c/0.jpg": b"", "c/1.jpg": b"text", "c/2.jpg": JPEG[:-20], "c/3.jpg": JPEG})
    found = scan.scan(tmp_path, workers=1)
    assert found.heights.tolist() == [0, 0, 0, 4]
    assert found.sizes.tolist() == [0, 4, len(JPEG) - 20, len(JPEG)]


def test_hidden_tar_files_are_no_shards(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"c/0.jpg": JPEG})
    (tmp_path / ".b.tar.1.tmp").write_text("being written")
    (tmp_path / ".b.tar").write_text("hidden")
    assert scan.scan(tmp_path, workers=1).shards == ("a.tar",)
