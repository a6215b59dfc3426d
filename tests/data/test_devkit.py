"""The development kit: which class each validation image is of, and a damaged kit told."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from hvdtrain.data import matfile
from hvdtrain.data.devkit import TRUTH, validation_wnids
from hvdtrain.errors import DataError
from tests.data.ilsvrc import PARENTS, TRUTH_IDS, WNID_OF_ID, Given, devkit, meta, tar, write


@pytest.fixture
def given_archives(tmp_path: Path) -> Given:
    return write(tmp_path / "archives")


@pytest.mark.parametrize("compress", [True, False])
def test_meta_may_be_compressed_or_not(compress: bool, tmp_path: Path) -> None:
    (tmp_path / "kit").write_bytes(devkit(meta_mat=meta(compress=compress)))
    assert validation_wnids(tmp_path / "kit") == tuple(WNID_OF_ID[number] for number in TRUTH_IDS)


def test_one_class_is_enough(tmp_path: Path) -> None:
    (tmp_path / "kit").write_bytes(devkit("7\n7\n", meta([(7, "n00000007", 0)])))
    assert validation_wnids(tmp_path / "kit") == ("n00000007", "n00000007")


@pytest.mark.parametrize("compress", [True, False])
def test_fields_are_read_as_scipy_reads_them(compress: bool) -> None:
    synsets = loadmat(io.BytesIO(meta(compress=compress)), squeeze_me=True)["synsets"]
    fields = ("WNID", "ILSVRC2012_ID", "words", "num_children")
    theirs = list(zip(*(synsets[field].tolist() for field in fields), strict=True))
    assert matfile.rows(meta(compress=compress), "synsets", fields) == theirs
    assert len(theirs) == len(WNID_OF_ID) + len(PARENTS)


@pytest.mark.parametrize(
    "kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
)
def test_numbers_of_every_kind_are_read(kind: type[np.generic]) -> None:
    file = io.BytesIO()
    savemat(file, {"other": "x", "cells": np.array([1, "a"], object), "s": {"a": kind(100), "t": "text"}})
    assert matfile.rows(file.getvalue(), "s", ("t", "a")) == [("text", 100.0)]


@pytest.mark.parametrize(
    ("kit", "message"),
    [
        (lambda: devkit("3\n" * 11), "val.tar has .*: the ground truth in .* has 11 lines"),
        (lambda: devkit("3\n" * 13), "has 12 images: the ground truth in .* has 13 lines"),
        (lambda: devkit(""), "is empty: expected an ILSVRC2012_ID per line"),
        (lambda: devkit("3\n" * 11 + "0\n"), "line 12 of .* is '0': expected one of the 4 IDs"),
        (lambda: devkit("3\n" * 11 + "5\n"), "line 12 of .* is '5': expected one of the 4 IDs"),  # it has children
        (lambda: devkit("x\n" * 12), "line 1 of .* is 'x'"),
        (lambda: devkit("\xff\n" * 12), "line 1 of "),
        (lambda: devkit(meta_mat=b""), "meta.mat of .* cannot be read"),
        (lambda: devkit(meta_mat=b"MATLAB 5.0" * 100), "meta.mat of .* cannot be read"),
        (lambda: devkit(meta_mat=meta()[:-20]), "meta.mat of .* cannot be read"),
        (lambda: devkit(meta_mat=other_mat()), "meta.mat of .* cannot be read"),
        (lambda: devkit(meta_mat=meta([(1, "../../up", 0)])), r"has the wnid '../../up' for ID 1"),
        (lambda: devkit(meta_mat=meta([(1, "n01440764", 0), (1, "n01443537", 0)])), "an ID or a wnid twice"),
        (lambda: devkit(meta_mat=meta([(1, "n01440764", 0), (2, "n01440764", 0)])), "an ID or a wnid twice"),
        (lambda: devkit(more=[(TRUTH, b"1\n")]), "validation_ground_truth.txt twice"),
        (lambda: gzip.compress(tar([("x", b"")])), "devkit.tar.gz has no ILSVRC2012_devkit_t12/data/ILSVRC2012_val"),
        (lambda: devkit()[:-100], "is no tar.gz archive, or is torn"),
        (lambda: b"", "is no tar.gz archive, or is torn|has no ILSVRC"),
    ],
)
def test_a_kit_that_does_not_fit_is_told(
    kit: Callable[[], bytes], message: str, given_archives: Given, tmp_path: Path
) -> None:
    given_archives.devkit.write_bytes(kit())
    with pytest.raises(DataError, match=message):
        given_archives.into(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def other_mat() -> bytes:
    file = io.BytesIO()
    savemat(file, {"synsets": np.eye(3)})
    return file.getvalue()


def damaged(data: bytes, changes: list[tuple[float, int]]) -> bytes:
    changed = bytearray(data)
    for where, byte in changes:
        changed[min(int(where * len(changed)), len(changed) - 1)] = byte
    return bytes(changed)


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6)


@settings(max_examples=400)
@given(changes=CHANGES, compress=st.booleans())
def test_a_damaged_meta_is_told_or_does_not_matter(
    changes: list[tuple[float, int]], compress: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("kit") / "devkit.tar.gz"
    path.write_bytes(devkit(meta_mat=damaged(meta(compress=compress), changes)))
    try:
        assert len(validation_wnids(path)) == len(TRUTH_IDS)
    except DataError as error:
        assert str(path) in str(error)
