"""Files and folders that are there whole or not at all."""

import json
import os
import threading
from pathlib import Path

import pytest

from hvdtrain.files import folder_whole, pretty_json, sync_folder, write_whole


def test_a_file_is_written_and_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "one")
    write_whole(path, "zwei ü\n")
    assert path.read_text() == "zwei ü\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_or_the_new_text_and_nothing_between(tmp_path: Path) -> None:
    path, over = tmp_path / "a", threading.Event()
    texts = {letter * 200_000 for letter in "ab"}
    write_whole(path, "a" * 200_000)

    def write() -> None:
        for _ in range(10):
            for text in sorted(texts):
                write_whole(path, text)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        assert path.read_text() in texts
    writer.join()


def test_what_is_replaced_keeps_its_content_for_whoever_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old")
    with path.open() as file:
        write_whole(path, "new")
        assert file.read() == "old"


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"


def test_a_text_that_cannot_be_written_leaves_nothing_beside(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a", "\ud800")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_with_all_that_was_put_into_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    with folder_whole(path) as temporary:
        (temporary / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_that_was_not_finished_vanishes(failure: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(failure), folder_whole(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("1")
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("1")
    with pytest.raises(OSError, match="not empty"), folder_whole(path) as temporary:
        (temporary / "new").write_text("2")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_this_process_left_half_before_is_no_hindrance(tmp_path: Path) -> None:
    left = tmp_path / f".folder.{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").write_text("x")
    with folder_whole(tmp_path / "folder") as temporary:
        (temporary / "a").write_text("1")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["a"]


def test_syncing_closes_what_it_opens(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        sync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "none")


def test_pretty_json_is_json_and_ends_its_line() -> None:
    assert json.loads(pretty_json({"a": [1]})) == {"a": [1]}
    assert pretty_json({"a": 1}) == '{\n  "a": 1\n}\n'
