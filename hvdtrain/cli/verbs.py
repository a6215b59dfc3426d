"""What all verbs share."""

import argparse
import os
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from hvdtrain.config.load import Parser
from hvdtrain.distributed.topology import Topology

Verb = Callable[[Namespace, Topology], int]
"""What was given -> exit code."""

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[Parser]


def add_threads(verb: Parser) -> None:
    verb.add_argument("--threads", type=int, default=0, metavar="N", help="images at a time; 0: as many as cores")


def threads(given: Namespace) -> int:
    return given.threads or len(os.sched_getaffinity(0))
