"""How long the program's messages are when as much as can goes wrong at once on k workers, and what they cost."""

import math
import time
from collections.abc import Callable, Sequence

from hvdtrain.cli import turn_seconds
from hvdtrain.distributed import preflight
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.verdict import Sight, judge, lost_peers
from hvdtrain.errors import ConfigError, EnvironmentFault

SILENCE = 300.0
LAUNCHER_SECONDS = 0.5  # from the end of one worker to that of all


class Different(SoloComm):
    """Of `size` workers, each of which says what `of` makes of what this one says."""

    def __init__(self, size: int, of: Callable[[object, int], object]) -> None:
        self.size, self._of = size, of

    def gather(self, value: object, name: str) -> list[object]:  # type: ignore[override]
        return [self._of(value, rank) for rank in range(self.size)]


def figures(size: int) -> dict[str, float]:
    """Characters, milliseconds of CPU, and lines, by name."""
    silent = [sight(rank, 400.0 if rank >= size // 2 else 0.1) for rank in range(size)]
    apart = [sight(rank, 0.1, collective=f"gradients.{rank}", idle_seconds=400.0) for rank in range(size)]
    said = {
        "all have other settings": lambda: refused(size, settings),
        "all have other software": lambda: refused(size, software),
        "all have other clocks": lambda: " ".join(
            preflight.clock_warnings([10.0 * r for r in range(size)], hosts(size))
        ),
        "half fell silent": lambda: message(silent),
        "all wait in different collectives": lambda: message(apart),
        "all closed their connections": lambda: lost_peers([sight(r, 9.0, lost=True) for r in range(size)], 5.0),
    }
    texts, began = {}, time.process_time()
    for name, say in said.items():
        texts[name] = say()
    milliseconds = 1000 * (time.process_time() - began)
    speakers = sum(turn_seconds(rank) < LAUNCHER_SECONDS for rank in range(size))
    return {
        **{f"message, {name}: characters": len(text) for name, text in texts.items()},
        "messages: CPU milliseconds for all of these": milliseconds,
        "all fail at once: lines before the launcher ends them": speakers,
    }


def hosts(size: int) -> list[str]:
    return [f"node{rank // 8:04}" for rank in range(size)]


def sight(rank: int, silent_seconds: float, **more: object) -> Sight:
    return Sight(rank, f"node{rank // 8:04}", 1000 + rank, silent_seconds, **{"phase": "training", **more})  # type: ignore


def message(sights: Sequence[Sight]) -> str:
    verdict = judge(sights, SILENCE)
    assert verdict
    return verdict.message


def settings(value: object, rank: int) -> object:
    """The digest of all settings first, then all of them: both are another one on each rank."""
    if isinstance(value, dict):
        return {name: f"{text} {rank}" for name, text in value.items()}
    _, versions, place, digest = value  # type: ignore[misc]
    return f"node{rank // 8:04}", versions, place, f"{digest} {rank}"


def software(value: object, rank: int) -> object:
    _, versions, place, digest = value  # type: ignore[misc]
    return f"node{rank // 8:04}", {name: f"{text}.{rank}" for name, text in versions.items()}, place, digest


def refused(size: int, of: Callable[[object, int], object]) -> str:
    """What preflight ends with."""
    facts = {f"setting.{number}": str(math.pi * number) for number in range(100)}
    try:
        preflight.agree(
            Different(size, of),
            "h",
            settings=facts,
            software={"torch": "2.13", "Horovod": "0.28"},
            place={"device": "d"},
        )
    except (ConfigError, EnvironmentFault) as error:
        return str(error)
    raise AssertionError("nothing was found to be different")
