"""Folders -> one table, and what is wrong with a folder said by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvdtrain.data import index
from hvdtrain.errors import DataError


def picture(path: Path, height: int = 4, width: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    format = {".jpg": "JPEG", ".jpeg": "JPEG"}.get(path.suffix.lower(), path.suffix[1:])
    Image.new("RGB", (width, height)).save(path, format)
    return path


def test_labels_count_the_classes_in_sorted_order(tmp_path: Path) -> None:
    for name in ("n02/b.JPEG", "n10/z.JPEG", "n02/a.JPEG", "n01/c.JPEG"):
        picture(tmp_path / name)
    found = index.build(tmp_path, threads=2)
    assert found.classes == ("n01", "n02", "n10")
    assert found.paths == ("n01/c.JPEG", "n02/a.JPEG", "n02/b.JPEG", "n10/z.JPEG")
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert len(found) == 4
    assert found.root == tmp_path


def test_sizes_are_height_and_width_of_each_image_in_order(tmp_path: Path) -> None:
    for i in range(20):
        picture(tmp_path / "c" / f"{i:02}.png", height=1 + i, width=100 - i)
    found = index.build(tmp_path, threads=4)
    assert found.heights.tolist() == list(range(1, 21))
    assert found.widths.tolist() == list(range(100, 80, -1))
    assert (found.heights.dtype, found.widths.dtype, found.labels.dtype) == (np.int32, np.int32, np.int64)


def test_an_image_that_its_exif_turns_keeps_its_stored_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    (tmp_path / "c").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "c" / "turned.jpg", exif=exif)
    found = index.build(tmp_path, threads=1)
    assert (found.heights[0], found.widths[0]) == (4, 6)


@pytest.mark.parametrize("suffix", [".JPEG", ".jpg", ".jpeg", ".PNG", ".bmp", ".webp"])
def test_every_usual_suffix_counts(suffix: str, tmp_path: Path) -> None:
    assert index.build(picture(tmp_path / "c" / f"a{suffix}").parent.parent, threads=1).paths == (f"c/a{suffix}",)


def test_what_is_no_image_by_its_name_is_left_out(tmp_path: Path) -> None:
    picture(tmp_path / "c" / "a.jpg")
    (tmp_path / "c" / "Thumbs.db").write_text("x")
    (tmp_path / "LICENSE.txt").write_text("x")
    picture(tmp_path / "stray.jpg")
    assert index.build(tmp_path, threads=1).paths == ("c/a.jpg",)


def test_a_class_without_images_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    picture(tmp_path / "b" / "x.jpg")
    found = index.build(tmp_path, threads=1)
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_any_number_of_threads_gives_the_same_table(threads: int, tmp_path: Path) -> None:
    for i in range(9):
        picture(tmp_path / str(i % 3) / f"{i}.png", height=i + 1)
    assert index.build(tmp_path, threads=threads).heights.tolist() == [1, 4, 7, 2, 5, 8, 3, 6, 9]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no folder {tmp_path}/none: expected {tmp_path}/none/<class>/"):
        index.build(tmp_path / "none", threads=1)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match=f"no images in {tmp_path}: .*data.dir"):
        index.build(tmp_path, threads=1)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0"])
def test_an_image_that_cannot_be_read_is_named(content: bytes, tmp_path: Path) -> None:
    picture(tmp_path / "c" / "good.jpg")
    (tmp_path / "c" / "bad.jpg").write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path}/c/bad.jpg is no image"):
        index.build(tmp_path, threads=2)
