"""Photographs of the benches: pictures that cost a decoder what ImageNet's do."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from hvdtrain.bench import photos

IMAGES = 60


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    photos.write(folder, images=IMAGES, classes=5, seed=3)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*.JPEG")
    }


def test_every_class_has_its_share(written: Path) -> None:
    classes = sorted(written.glob("train/*"))
    assert [len(list(each.iterdir())) for each in classes] == [IMAGES // 5] * 5


def test_pictures_have_the_sizes_of_imagenet(written: Path) -> None:
    sizes = []
    for file in written.rglob("*.JPEG"):
        with Image.open(file) as picture:
            assert picture.format == "JPEG"
            assert picture.mode == "RGB"
            assert picture.layer[0][1:3] == (2, 2), "luma has twice the chroma's lines and columns: 4:2:0"
            sizes.append(picture.size)
    assert sizes.count((500, 375)) > IMAGES / 4
    assert any(height > width for width, height in sizes)
    assert len(set(sizes)) > 4
    assert all(300 <= side <= 800 for size in sizes for side in size)


def test_files_have_about_the_bytes_of_imagenet(written: Path) -> None:
    mean = sum(file.stat().st_size for file in written.rglob("*.JPEG")) / IMAGES
    assert 60e3 < mean < 110e3


def test_the_same_arguments_write_the_same_bytes(written: Path, tmp_path: Path) -> None:
    photos.write(tmp_path, images=IMAGES, classes=5, seed=3)
    assert digests(tmp_path) == digests(written)


def test_a_longer_set_begins_like_a_shorter_one(written: Path, tmp_path: Path) -> None:
    photos.write(tmp_path, images=10, classes=5, seed=3)
    assert digests(tmp_path).items() <= digests(written).items()


def test_no_two_pictures_are_the_same(written: Path, tmp_path: Path) -> None:
    photos.write(tmp_path, images=IMAGES, classes=5, seed=3, part="val")
    photos.write(tmp_path / "another seed", images=IMAGES, classes=5, seed=4)
    assert len({*digests(written).values(), *digests(tmp_path).values()}) == 3 * IMAGES


def test_each_class_needs_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 images for 5 classes"):
        photos.write(tmp_path, images=4, classes=5)
    assert list(tmp_path.iterdir()) == []
