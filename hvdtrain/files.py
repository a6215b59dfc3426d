"""Files and folders that appear whole or not at all, whatever is killed when."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Replace `path` by `text` in one instant, durably."""
    with replace_whole(path, "w") as file:
        file.write(text)


@contextmanager
def replace_whole(path: Path, mode: str) -> Iterator[IO[Any]]:
    """A temporary file to write, which becomes `path` when the block ends and vanishes if it raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path` when the block ends and vanishes if it raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_folder(temporary)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder as durable as the files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
