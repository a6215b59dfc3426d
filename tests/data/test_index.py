"""The table of images: kept in a file, it comes back as it was or not at all."""

import json
import os
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.data import index
from hvdtrain.data.index import Index, Names
from hvdtrain.errors import DataError

UNDECODABLE = os.fsdecode(b"n02/\xff\xfe.JPEG")
TEXTS = ["n01/a b.JPEG", "n01/Bär.JPEG", "n02/線.png", "", UNDECODABLE]

any_name = st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(os.fsdecode)


def folders() -> Index:
    return Index(
        classes=("n01", os.fsdecode(b"n\xff"), "Möwe 3"),
        names=Names.of(["n01/a.JPEG", "n01/b c.JPEG", UNDECODABLE]),
        labels=np.array([0, 0, 2]),
        sizes=np.array([10, 0, 2**40]),
        heights=np.array([375, 0, 1], np.int32),
        widths=np.array([500, 0, 2], np.int32),
    )


def packed() -> Index:
    shard, offsets = np.array([1, 0, 1], np.int32), np.array([512, 512, 2**41])
    return replace(folders(), shards=("a.tar", "b.tar"), shard=shard, offsets=offsets)


def rows(table: Index) -> dict[str, Any]:
    """Everything in it, comparable, its columns with their types."""
    values = {field.name: getattr(table, field.name) for field in fields(table)} | {"names": list(table.names)}
    return {
        name: (value.dtype.str, value.tolist()) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }


def test_names_are_the_texts_in_order() -> None:
    names = Names.of(TEXTS)
    assert list(names) == TEXTS
    assert len(names) == 5
    assert names[-1] == UNDECODABLE
    assert names[np.int64(1)] == "n01/Bär.JPEG"
    assert names[1:4] == TEXTS[1:4]
    assert names[::-2] == TEXTS[::-2]
    assert "n02/線.png" in names
    assert names.index("") == 3


def test_names_take_the_bytes_of_their_letters_alone() -> None:
    names = Names.of(f"n01440764/n01440764_{i:05}.JPEG" for i in range(1000))
    assert (names.letters.dtype, names.letters.nbytes) == (np.uint8, 1000 * 30)
    assert (names.ends.dtype, names.ends.nbytes) == (np.int64, 8000)


@pytest.mark.parametrize("row", [5, -6, 10**9])
def test_a_name_that_is_not_there_is_no_name(row: int) -> None:
    with pytest.raises(IndexError, match=str(row)):
        Names.of(TEXTS)[row]


def test_there_may_be_no_names() -> None:
    assert list(Names.of([])) == []
    with pytest.raises(IndexError):
        Names.of([])[0]


def test_names_are_equal_where_their_texts_are() -> None:
    assert Names.of(TEXTS) == Names.of(TEXTS)
    assert Names.of(["ab", "c"]) != Names.of(["a", "bc"])
    assert Names.of(["a"]) != Names.of(["a", ""])
    assert Names.of(["a"]) != ["a"]


@given(texts=st.lists(any_name), rows=st.slices(12))
def test_names_are_like_a_list_of_texts(texts: list[str], rows: slice) -> None:
    names = Names.of(texts)
    assert list(names) == texts
    assert names[rows] == texts[rows]
    assert [names[row] for row in range(-len(texts), 0)] == texts
    assert names == Names.of(texts)


@given(texts=st.lists(any_name, min_size=1), others=st.lists(any_name))
def test_names_of_other_texts_are_other_names(texts: list[str], others: list[str]) -> None:
    assert (Names.of(texts) == Names.of(others)) == (texts == others)


def test_an_image_without_height_is_unreadable() -> None:
    assert folders().unreadable.tolist() == [False, True, False]
    assert len(folders()) == 3


def test_the_digest_never_changes() -> None:
    """It names folders of staged images and goes into checkpoints."""
    assert folders().digest == "1ff577cab67f51f7"


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("n01", "n02", "Möwe 3")},
        {"names": Names.of(["n01/a.JPEG", "n01/b c.JPEG", "n02/x.JPEG"])},
        {"names": Names.of(["n01/a.JPE", "Gn01/b c.JPEG", UNDECODABLE])},
        {"labels": np.array([0, 1, 2])},
        {"sizes": np.array([10, 1, 2**40])},
        {"heights": np.array([376, 0, 1], np.int32)},
        {"widths": np.array([501, 0, 2], np.int32)},
    ],
)
def test_whatever_decides_the_pictures_changes_the_digest(change: dict[str, Any]) -> None:
    assert replace(folders(), **change).digest != folders().digest


def test_where_the_bytes_lie_does_not_change_the_digest() -> None:
    assert packed().digest == folders().digest


@pytest.mark.parametrize("table", [folders(), packed()])
def test_what_is_saved_comes_back(table: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "train.npz", table, fingerprint="as of today")
    loaded, fingerprint = index.load(tmp_path / "train.npz")
    assert rows(loaded) == rows(table)
    assert loaded.digest == table.digest
    assert fingerprint == "as of today"
    assert [path.name for path in tmp_path.iterdir()] == ["train.npz"]


def test_saving_replaces_what_was_there(tmp_path: Path) -> None:
    index.save(tmp_path / "train.npz", folders(), fingerprint="old")
    index.save(tmp_path / "train.npz", packed(), fingerprint="new")
    loaded, fingerprint = index.load(tmp_path / "train.npz")
    assert (rows(loaded), fingerprint) == (rows(packed()), "new")


def test_a_table_cut_anywhere_is_no_index(tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    index.save(file, packed(), fingerprint="f")
    whole = file.read_bytes()
    for length in [*range(0, len(whole), 31), *range(len(whole) - 40, len(whole))]:
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"{file} is no index: "):
            index.load(file)


def test_a_table_with_any_byte_changed_is_refused_or_unharmed(tmp_path: Path) -> None:
    """Unharmed: a byte of no meaning was hit, such as the time in the archive."""
    file = tmp_path / "train.npz"
    index.save(file, packed(), fingerprint="f")
    whole = file.read_bytes()
    directory = whole.index(b"PK\1\2")  # few bytes, of which each means something
    refused = 0
    for place in [*range(0, directory, 5), *range(directory, len(whole))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            loaded, fingerprint = index.load(file)
        except DataError as error:
            assert str(error).startswith((f"{file} is no index: ", f"{file} is torn: "))
            refused += 1
        else:
            assert (rows(loaded), fingerprint) == (rows(packed()), "f"), place
    assert refused > len(whole) / 8


@pytest.mark.parametrize("flag", [b"\x01\x00", b"\x20\x00"])
def test_an_archive_that_claims_to_be_locked_or_patched_is_no_index(flag: bytes, tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    index.save(file, folders(), fingerprint="f")
    damaged = bytearray(file.read_bytes())
    directory = damaged.index(b"PK\1\2")
    damaged[directory + 8 : directory + 10] = flag
    file.write_bytes(damaged)
    with pytest.raises(DataError, match=f"{file} is no index: "):
        index.load(file)


def rewritten(file: Path, change: Any) -> None:
    """The table at `file` with its columns and header changed by someone who knows the format."""
    with np.load(file) as archive:
        columns = {name: archive[name] for name in archive.files}
    header = json.loads(columns["header"].tobytes())
    change(columns, header)
    columns["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with file.open("wb") as out:
        np.savez(out, **columns)


def test_columns_that_are_not_those_that_were_saved_are_torn(tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    index.save(file, folders(), fingerprint="f")
    rewritten(file, lambda columns, header: columns["labels"].__setitem__(0, 1))
    with pytest.raises(DataError, match=f"{file} is torn: its digest is [0-9a-f]{{16}}, expected {folders().digest}"):
        index.load(file)


@pytest.mark.parametrize("schema", [0, index.SCHEMA + 1, "1", None])
def test_another_schema_is_refused(schema: Any, tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    index.save(file, folders(), fingerprint="f")
    rewritten(file, lambda columns, header: header.update(schema=schema))
    with pytest.raises(DataError, match=f"{file} has schema {schema}: expected {index.SCHEMA}"):
        index.load(file)


@pytest.mark.parametrize("lost", ["schema", "fingerprint", "digest", "classes", "shards"])
def test_a_header_that_lacks_an_entry_is_no_index(lost: str, tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    index.save(file, folders(), fingerprint="f")
    rewritten(file, lambda columns, header: header.pop(lost))
    with pytest.raises(DataError, match=f"{file} is no index: '{lost}'"):
        index.load(file)


@pytest.mark.parametrize("lost", ["labels", "letters", "ends"])
def test_a_table_that_lacks_a_column_is_no_index(lost: str, tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    index.save(file, folders(), fingerprint="f")
    rewritten(file, lambda columns, header: columns.pop(lost))
    with pytest.raises(DataError, match=f"{file} is no index: .*{lost}"):
        index.load(file)


def test_a_column_of_the_future_is_no_index(tmp_path: Path) -> None:
    file = tmp_path / "train.npz"
    index.save(file, folders(), fingerprint="f")
    rewritten(file, lambda columns, header: columns.update(colours=np.zeros(3)))
    with pytest.raises(DataError, match=f"{file} is no index: .*colours"):
        index.load(file)


def test_what_was_never_a_table_is_no_index(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.arange(3))
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text").write_text("no table")
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("header", "{}")
    for name in ("array.npy", "pickle.npy", "text", "folder", "archive.zip", "missing"):
        with pytest.raises(DataError, match=f"{tmp_path}/{name} is no index: "):
            index.load(tmp_path / name)
