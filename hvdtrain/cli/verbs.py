"""What all verbs share."""

import argparse
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain.config.load import Parser
from hvdtrain.distributed.topology import Topology

Verb = Callable[[Namespace, Topology], int]
"""What was given -> exit code."""

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[Parser]


def check_files(parser: Parser, *files: Path | None) -> None:
    """Before minutes are spent: can each of them be a file, in a folder that is there?

    Raises:
        ConfigError: one of them cannot.
    """
    for file in files:
        if file and not file.absolute().parent.is_dir():
            parser.error(f"{file}: no folder {file.absolute().parent}")
        if file and file.is_dir():
            parser.error(f"{file}: expected a file to write, got a folder")


def add_threads(verb: Parser) -> None:
    verb.add_argument("--threads", type=int, default=0, metavar="N", help="images at a time; 0: as many as cores")


def threads(given: Namespace) -> int:
    return given.threads or len(os.sched_getaffinity(0))
