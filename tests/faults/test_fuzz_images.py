"""Damaged indices and shards: the true index, made anew if need be, or an error; never a wrong one in silence.

A tar archive has sums over its headers alone. A byte that changes inside an image or a label passes unnoticed here: the
image is decoded with a fault in it, or is left out if it cannot be, and a label is another one. `sha256sum` of the
shards tells.
"""

import os
import random
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hvdtrain.data import scan, shards
from hvdtrain.data.index import Index
from hvdtrain.data.storage import storage
from hvdtrain.errors import DataError
from tests.data.test_scan import encoded, picture
from tests.data.test_shards import tar_of

from .tally import Times, Trials

BLOCK = tarfile.BLOCKSIZE
CHECKSUM = slice(148, 156)  # of a header


def same(one: Index, other: Index) -> bool:
    columns = one.columns(), other.columns()
    return (
        (one.classes, one.shards) == (other.classes, other.shards)
        and columns[0].keys() == columns[1].keys()
        and all(
            a.dtype == columns[1][name].dtype and np.array_equal(a, columns[1][name]) for name, a in columns[0].items()
        )
    )


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    root = tmp_path / "folders" / "train"
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        picture(root / name)
    return root


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Two images with labels, of names that need a header of their own, and of a usual one."""
    root = tmp_path / "packed" / "train"
    content = {f"{letter}/{'ä' * 60}/{number}.png": encoded("PNG") for letter, number in (("a", 1), ("b", 2))}
    content["c/3.png"] = encoded("PNG", 5, 5)
    content["c/3.cls"] = b"2"
    tar_of(root / "one.tar", content)
    (root / "classes.txt").write_text(
        "".join(f"{name}\n" for name in (*sorted({n.rpartition("/")[0] for n in content}), "d"))
    )
    return root


@pytest.mark.parametrize("kind", ["folders", "packed"])
def test_a_kept_index_with_any_byte_changed_or_cut_anywhere(
    kind: str, request: pytest.FixtureRequest, trials: Trials, times: Times, tmp_path: Path
) -> None:
    root: Path = request.getfixturevalue(kind)
    true = scan.find(root, cache=tmp_path / "cache", workers=1)
    (kept,) = (root.parent / scan.BESIDE).iterdir()
    whole = kept.read_bytes()

    def found(content: bytes) -> Index:
        kept.write_bytes(content)
        return scan.find(root, cache=tmp_path / "cache", workers=1)

    every = times(13, 5)
    with trials(f"a byte of the index of {kind} changed") as tally:
        for place in range(0, len(whole), every):
            for bit in range(8) if every == 1 else [place // every % 8]:
                with tally.one(f"bit {bit} of byte {place}"):
                    changed = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
                    assert same(found(changed), true)
    with trials(f"the index of {kind} cut") as tally:
        for length in range(0, len(whole), every):
            with tally.one(f"{length} bytes left"):
                assert same(found(whole[:length]), true)
    with trials(f"noise in the index of {kind}") as tally:
        for seed in range(times(60, 200)):
            with tally.one(f"seed {seed}"):
                draw = random.Random(seed)
                changed = bytearray(whole)
                begin = draw.randrange(len(whole))
                changed[begin : begin + draw.choice([2, 4, 8, 64])] = draw.randbytes(draw.choice([2, 4, 8, 64]))
                assert same(found(bytes(changed)), true)


def headers(tar: bytes) -> list[int]:
    """Where each header begins, those of long names too."""
    places, place = [], 0
    while tar[place : place + BLOCK].strip(b"\0"):
        places.append(place)
        size = tarfile.nti(tar[place + 124 : place + 136])
        place += BLOCK + -(-size // BLOCK) * BLOCK
    return places


def with_right_sum(tar: bytes, header: int) -> bytes:
    """As somebody writes it who means harm, or a writer with a fault."""
    block = bytearray(tar[header : header + BLOCK])
    block[CHECKSUM] = b" " * 8
    block[CHECKSUM] = b"%06o\0 " % sum(block)
    return tar[:header] + bytes(block) + tar[header + BLOCK :]


def expect_rows_within_the_file_or_an_error(root: Path, content: bytes) -> None:
    file = root / "one.tar"
    file.write_bytes(content)
    shutil.rmtree(root.parent / scan.BESIDE, ignore_errors=True)
    try:
        found = scan.find(root, cache=root.parent / "cache", workers=1)
    except DataError as error:
        assert len(str(error)) < 1000
        return
    assert found.offsets is not None
    assert len(found) > 0
    assert (found.sizes >= 0).all()
    assert (found.offsets >= 0).all()
    assert (found.offsets + found.sizes <= len(content)).all()
    assert ((found.labels >= 0) & (found.labels < len(found.classes))).all()
    reading = storage(root, found, threads=1)
    for row, read in enumerate(reading.fetch(np.arange(len(found)))()):
        begin = int(found.offsets[row])
        assert read.tobytes() == content[begin : begin + int(found.sizes[row])]
    for descriptor in reading._descriptors.values():  # the storage of a run lives as long as the process
        os.close(descriptor)
    reading._pool.shutdown()


def changes(tar: bytes, every: int) -> Iterator[tuple[str, bytes]]:
    for place in range(0, len(tar), every):
        bit = place // every % 8
        yield f"bit {bit} of byte {place}", tar[:place] + bytes([tar[place] ^ 1 << bit]) + tar[place + 1 :]


def test_a_shard_with_any_byte_changed_or_cut_anywhere(packed: Path, trials: Trials, times: Times) -> None:
    tar = (packed / "one.tar").read_bytes()
    every = times(23, 9)
    with trials("a byte of a shard changed") as tally:
        for which, content in changes(tar, every):
            with tally.one(which):
                expect_rows_within_the_file_or_an_error(packed, content)
    with trials("a shard cut") as tally:
        for length in range(0, len(tar), every):
            with tally.one(f"{length} bytes left"):
                expect_rows_within_the_file_or_an_error(packed, tar[:length])


def test_a_shard_whose_headers_say_anything_under_a_right_sum(packed: Path, trials: Trials, times: Times) -> None:
    tar = (packed / "one.tar").read_bytes()
    places = headers(tar)
    assert len(places) == 6
    odd = [
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"77777777777\0",
        b"\x80" + bytes(5) + b"\x10" + bytes(5),
        b"-0000000001\0",
        b"\xff" * 11 + b"\xfe",
        b"x" * 12,
        b"",
    ]
    with trials("a shard's headers changed under a right sum") as tally:
        for seed in range(times(600, 2000)):
            draw = random.Random(seed)
            header = draw.choice(places)
            changed = bytearray(tar)
            match draw.randrange(4):
                case 0:
                    changed[header + draw.randrange(BLOCK)] ^= 1 << draw.randrange(8)
                case 1:  # its size
                    changed[header + 124 : header + 136] = draw.choice([*odd, draw.randbytes(12)])[:12].ljust(12, b"\0")
                case 2:  # its kind
                    changed[header + 156] = draw.choice(b"0123456789xgLKSDVNMA\0")
                case _:  # both
                    changed[header + 124 : header + 136] = draw.choice(odd).ljust(12, b"\0")
                    changed[header + 156] = draw.choice(b"0xgLKS")
            if draw.random() < 0.3:  # and what follows it: the records of a long name, or an image
                begin = header + BLOCK + draw.randrange(40)
                changed[begin : begin + 4] = draw.choice([b"9999", b"\0\0\0\0", b"size", b"-1 s", draw.randbytes(4)])
            with tally.one(f"seed {seed}"):
                expect_rows_within_the_file_or_an_error(packed, with_right_sum(bytes(changed), header))


@pytest.mark.parametrize("label", [b"999999999999", b"-1", b"9" * 5000, b"\0" * 10**6, b"x", b"", b"1e3"])
def test_a_label_of_any_size(label: bytes, tmp_path: Path) -> None:
    tar_of(tmp_path / "train" / "one.tar", {"1.png": encoded("PNG"), "1.cls": label})
    with pytest.raises(DataError, match=r"one.tar|shards"):
        scan.find(tmp_path / "train", cache=tmp_path, workers=1)


def test_the_shard_of_these_tests_is_whole(packed: Path) -> None:
    found = shards.scan(packed, workers=1)
    assert found.labels.tolist() == [0, 1, 2]
    assert not found.unreadable.any()
    expect_rows_within_the_file_or_an_error(packed, (packed / "one.tar").read_bytes())
