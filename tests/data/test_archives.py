"""Archives that are not what they should be: each is refused by name, and nothing gets past."""

import dataclasses
import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdtrain import torchvision
from hvdtrain.data import archives
from hvdtrain.data import prepare as verb
from hvdtrain.data.prepare import prepare
from hvdtrain.errors import ConfigError, DataError
from tests.data.ilsvrc import (
    END,
    TRAIN,
    TRUTH_IDS,
    Given,
    images,
    tar,
    train_tar,
    training_images,
    truth,
    validation_images,
    write,
)


@pytest.fixture
def given_archives(tmp_path: Path) -> Given:
    return write(tmp_path / "archives")


def publish(monkeypatch: pytest.MonkeyPatch, given: Given) -> None:
    """Let these archives be the published ones."""
    sizes = {
        "train": (sum(TRAIN.values()), given.train),
        "val": (len(TRUTH_IDS), given.val),
        "devkit": (0, given.devkit),
    }
    for name, (count, path) in sizes.items():
        data = path.read_bytes()
        known = archives.Published(hashlib.md5(data).hexdigest(), size=len(data), classes=4, images=count)
        monkeypatch.setitem(archives.PUBLISHED, name, known)


def test_the_digests_are_the_published_ones() -> None:
    torchvision.load()
    from torchvision.datasets.imagenet import ARCHIVE_META

    published = {name: known.md5 for name, known in archives.PUBLISHED.items()}
    assert published == {name: md5 for name, (_, md5) in ARCHIVE_META.items()}
    assert all((known.size or 0) % 10_240 == 0 for known in archives.PUBLISHED.values())  # tar writes such records


def test_other_archives_than_the_published_need_to_be_asked_for(given_archives: Given, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train.tar has \d+ bytes: .*147897477120 .*--no-digest"):
        prepare(tmp_path / "out", train=given_archives.train)
    with pytest.raises(DataError, match=r"val.tar has \d+ bytes: .*6744924160"):
        given = given_archives
        prepare(tmp_path / "out", val=given.val, devkit=given.devkit)
    assert not (tmp_path / "out").exists()


def test_the_published_archives_are_taken(
    given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, given_archives)
    assert given_archives.into(tmp_path / "out", digests=True) == {"train": 14, "val": 12}
    assert images(tmp_path / "out") == truth()


@pytest.mark.parametrize("name", ["train", "val", "devkit"])
def test_one_wrong_bit_is_seen_before_anything_is_written(
    name: str, given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, given_archives)
    path: Path = getattr(given_archives, name)
    data = bytearray(path.read_bytes())
    data[-1 if name != "devkit" else 5] ^= 1  # a byte that nothing else looks at
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"{path.name} has MD5 [0-9a-f]{{32}}: the official {name} archive has"):
        given_archives.into(tmp_path / "out", digests=True)
    assert not (tmp_path / "out").exists()


def test_a_digest_is_computed_once(given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, given_archives)
    checked: list[str] = []

    def counted(part: str, archive: Path, done: Callable[[int], None]) -> str:
        checked.append(part)
        return archives.check_digest(part, archive, done)

    monkeypatch.setattr(verb, "check_digest", counted)
    given_archives.into(tmp_path / "out")
    assert checked == []
    given_archives.into(tmp_path / "out", digests=True)  # never checked yet
    assert checked == ["devkit", "train", "val"]
    next((tmp_path / "out" / "train").rglob("*.JPEG")).unlink()
    given_archives.into(tmp_path / "out", digests=True)
    assert checked == ["devkit", "train", "val", "devkit"]
    os.utime(given_archives.train, ns=(1, 1))  # it might have changed
    given_archives.into(tmp_path / "out", digests=True)
    assert checked == ["devkit", "train", "val", "devkit", "devkit", "train"]


def test_the_published_number_of_images_is_expected(
    given_archives: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, given_archives)
    known = dataclasses.replace(archives.PUBLISHED["train"], images=15)
    monkeypatch.setitem(archives.PUBLISHED, "train", known)
    with pytest.raises(DataError, match="train has 14 images of 4 classes: expected 15 of 4"):
        given_archives.into(tmp_path / "out", digests=True)


def test_one_archive_in_place_of_another_is_told(given_archives: Given, tmp_path: Path) -> None:
    given = given_archives
    with pytest.raises(DataError, match=r"val.tar has a file 'ILSVRC2012_val_00000001.JPEG': .* named <wnid>.tar"):
        prepare(tmp_path / "out", train=given.val, check_digests=False)
    with pytest.raises(DataError, match=r"train.tar has a file 'n15075141.tar': .* named ILSVRC2012_val_"):
        prepare(tmp_path / "out", val=given.train, devkit=given.devkit, check_digests=False)
    with pytest.raises(DataError, match=r"devkit.tar.gz is no tar archive"):
        prepare(tmp_path / "out", train=given.devkit, check_digests=False)
    with pytest.raises(DataError, match=r"val.tar is no tar.gz archive.*--devkit"):
        prepare(tmp_path / "out", val=given.val, devkit=given.val, check_digests=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", [(), ("val",), ("devkit",), ("train", "val"), ("train", "devkit")])
def test_what_cannot_be_prepared_from_what_was_given(
    which: tuple[str, ...], given_archives: Given, tmp_path: Path
) -> None:
    paths = {name: getattr(given_archives, name) for name in which}
    with pytest.raises(ConfigError, match="expected train, or val and devkit, or all"):
        prepare(tmp_path / "out", **paths, check_digests=False)


@pytest.mark.parametrize("digests", [True, False])
def test_a_missing_archive_is_named(digests: bool, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"No such file or directory: '{tmp_path}/none.tar'"):
        prepare(tmp_path / "out", train=tmp_path / "none.tar", check_digests=digests)
    with pytest.raises(DataError, match=f"Is a directory: '{tmp_path}'"):
        prepare(tmp_path / "out", train=tmp_path, check_digests=False)


def strange_members() -> dict[str, tarfile.TarInfo]:
    kinds = {}
    for kind, type in (
        ("symlink", tarfile.SYMTYPE),
        ("hard link", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
        ("pipe", tarfile.FIFOTYPE),
        ("folder", tarfile.DIRTYPE),
    ):
        kinds[kind] = tarfile.TarInfo("RIGHT")
        kinds[kind].type = type
        kinds[kind].linkname = "../../../outside"
    return kinds


STRANGE_NAMES = (
    "/tmp/outside.JPEG",
    "../outside.JPEG",
    "n01440764/../../../outside.JPEG",
    "./RIGHT",
    "x/RIGHT",
    "RIGHT/",
    "RIGHT\n",
    ".RIGHT",
    "RIGHT.exe",
    "ILSVRC2012_val_\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661.JPEG",  # digits, but not ours
    "n01440764_\u0661.JPEG",
    "n\u0660\u0661\u0664\u0664\u0660\u0667\u0666\u0664.tar",
    "n02119789_1.JPEG",
    "N01440764_1.JPEG",
    "n01440764_.JPEG",
    "n01440764_1.jpg",
    "n1.tar",
    "ILSVRC2012_val_1.JPEG",
    "",
    "a" * 300,
)


@pytest.mark.parametrize("strange", [*STRANGE_NAMES, *strange_members()])
@pytest.mark.parametrize("place", ["train", "class", "val"])
def test_a_member_that_is_not_an_image_is_refused(
    place: str, strange: str, given_archives: Given, tmp_path: Path
) -> None:
    right = {"train": "n99999999.tar", "class": "n01440764_77777.JPEG", "val": "ILSVRC2012_val_00000013.JPEG"}[place]
    member = strange_members().get(strange, tarfile.TarInfo(strange))
    member.name = member.name.replace("RIGHT", right)
    if member.isreg():
        member.size = 3
    if place == "train":
        given_archives.train.write_bytes(tar([("n01440764.tar", tar([("n01440764_1.JPEG", b"x")])), member]))
    elif place == "class":
        entries = [*training_images("n01440764").items(), member]
        given_archives.train.write_bytes(train_tar({"n01440764.tar": tar(entries)}))
    else:
        given_archives.val.write_bytes(tar([*validation_images().items(), member]))
    with pytest.raises(DataError, match="expected only files named"):
        given_archives.into(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"archives", "out"}
    assert not Path("/tmp/outside.JPEG").exists()
    written = images(tmp_path / "out")
    assert written.items() <= truth().items()
    assert not any("n01440764" in name for name in written)


@pytest.mark.parametrize("place", ["train", "class", "val"])
def test_a_member_that_is_there_twice_is_refused(place: str, given_archives: Given, tmp_path: Path) -> None:
    if place == "train":
        given_archives.train.write_bytes(tar([(f"{wnid}.tar", tar([])) for wnid in ("n01440764", "n01440764")]))
    elif place == "class":
        twice = [("n01440764_1.JPEG", b"x"), ("n01440764_1.JPEG", b"y")]
        given_archives.train.write_bytes(train_tar({"n01440764.tar": tar(twice)}))
    else:
        given_archives.val.write_bytes(tar([*validation_images().items(), ("ILSVRC2012_val_00000003.JPEG", b"x")]))
    with pytest.raises(DataError, match=r"(n01440764\.tar|n01440764_1.JPEG|val_00000003.JPEG)' twice"):
        given_archives.into(tmp_path / "out")


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (b"", "is no tar archive, or is torn: .* at byte 0"),
        (b"no tar archive " * 500, "is no tar archive, or is torn"),
        (END * 10, "is empty"),
        (tar(training_images("n01440764").items())[:700], "is cut off"),
        (
            tar([("n01440764_1.JPEG", b"x")]).rstrip(b"\0").ljust(1024, b"\0"),
            "is no tar archive, or is torn after 'n01440764_1.JPEG'",
        ),
    ],
)
def test_a_class_that_is_broken_inside_is_named(
    inside: bytes, message: str, given_archives: Given, tmp_path: Path
) -> None:
    given_archives.train.write_bytes(train_tar({"n01440764.tar": inside}))
    with pytest.raises(DataError, match=f"n01440764.tar in {given_archives.train} {message}"):
        given_archives.into(tmp_path / "out")
    assert not (tmp_path / "out" / "train" / "n01440764").exists()


def test_a_header_that_is_broken_in_the_middle_is_not_taken_for_the_end(given_archives: Given, tmp_path: Path) -> None:
    data = bytearray(given_archives.val.read_bytes())
    with tarfile.open(given_archives.val) as archive:
        middle = archive.getmembers()[6]
    data[middle.offset + 150] ^= 0xFF  # in its checksum
    given_archives.val.write_bytes(data)
    with tarfile.open(given_archives.val) as archive:
        assert len(archive.getmembers()) == 6  # tarfile is content
    with pytest.raises(DataError, match=r"torn after 'ILSVRC2012_val_00000006.JPEG'"):
        given_archives.into(tmp_path / "out")


def end_of(path: Path) -> int:
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


@pytest.mark.parametrize("name", ["train", "val"])
def test_an_archive_cut_anywhere_is_refused(name: str, given_archives: Given, tmp_path: Path) -> None:
    path: Path = getattr(given_archives, name)
    data, end = path.read_bytes(), end_of(path)
    with tarfile.open(path) as archive:
        begins = [member.offset for member in archive.getmembers()]
    cuts = {0, 1, 511, 512, 513, end - 1, end, end + 1, end + 511} | {
        begin + by for begin in begins for by in (-1, 0, 1)
    }
    for cut in sorted(cuts - {-1}):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match=f"{path.name}"):
            given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == {}
    path.write_bytes(data[: end + 512])  # its end is there, if not the padding
    given_archives.into(tmp_path / "out")
    assert images(tmp_path / "out") == truth()


def test_a_number_that_is_missing_is_told(given_archives: Given, tmp_path: Path) -> None:
    wrong = validation_images()
    del wrong["ILSVRC2012_val_00000005.JPEG"]
    given_archives.val.write_bytes(tar([*wrong.items(), ("ILSVRC2012_val_00000013.JPEG", b"x")]))
    with pytest.raises(DataError, match=r"has ILSVRC2012_val_00000013.JPEG: the ground truth in .* has 12 lines"):
        given_archives.into(tmp_path / "out")


@settings(max_examples=200)
@given(
    headers=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=4),
    mended=st.booleans(),
)
def test_a_damaged_header_is_told_or_does_not_matter(
    headers: list[tuple[int, int, int]], mended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = list(validation_images())
    data = bytearray(tar((name, b"x" * 100) for name in names))
    for number, at, byte in headers:
        begin = number * 1024
        data[begin + at] = byte
        if mended:  # so that the damage gets past the checksum
            data[begin + 148 : begin + 156] = b" " * 8
            data[begin + 148 : begin + 156] = b"%06o\0 " % sum(data[begin : begin + 512])
    path = tmp_path_factory.mktemp("val") / "val.tar"
    path.write_bytes(data)
    found = []
    try:
        with path.open("rb") as file:
            for member in archives.members(file, "val.tar", verb.VAL_IMAGE, "ILSVRC2012_val", size=len(data)):
                found.append(member.name)
                assert verb.VAL_IMAGE.fullmatch(member.name)
                assert 0 <= member.size <= len(data)
    except DataError as error:
        assert "val.tar" in str(error)
    else:
        assert len(found) == len(set(found))
