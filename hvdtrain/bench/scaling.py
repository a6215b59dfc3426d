"""How fast real training is on 1, 2, … workers: images per second of each, and efficiency.

Every measurement is a training run of its own, `hvdtrain train` with the settings given. They take turns in rounds, and
efficiency is taken round by round. A worker has the same CPU threads however many there are, so that it is the workers
that are compared.

    weak-k           every worker takes n images a step: kn grows
    strong-k         kn = K·n stays, K the largest number of workers: each takes K/k micro-batches of n, for the batch
                     of batch normalisation is no matter of k. With k = K it is weak-K, and the same runs
    independent-k    k runs of one worker at once that know nothing of each other: what the machine gives to k

    E_w(k|b) = [X(k)/k] / [X(b)/b] = weak-k / weak-b; E_s likewise; X: images/s; b: the smallest number of workers

weak-k / independent-k is what communication and waiting for each other cost; the rest of what E lacks is the machine's.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hvdtrain.bench import trials
from hvdtrain.bench.result import Result
from hvdtrain.bench.rounds import Goal, Rounds, take_turns
from hvdtrain.bench.trials import Speed, Trial, run
from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError

LEAST_WEAK = 0.75  # what allocation committees ask for
LEAST_OF_INDEPENDENT = 0.92  # of what the machine gives, as for the step


@dataclass(frozen=True)
class Options:
    config: Config
    """What to train; what would interrupt the steps is left out."""
    folder: Path
    """Where the run directories go. They are removed when they have been read."""
    workers: tuple[int, ...] = (1, 2)
    steps: int = 100
    """Timed ones of each run, rounded up to whole reports."""
    kind: Literal["weak", "strong", "both"] = "both"
    launcher: str = ""
    """Words that start the workers, as `mpirun -np {workers}`; empty: mpirun on this machine. With words of one's own
    there are no independent runs: those are for one machine."""
    per_node: int | None = None
    """Workers on each node, where the launcher starts them on several. None: all on this machine."""


def measure(options: Options, rounds: int) -> Result:
    """
    Raises:
        ConfigError: numbers of workers that cannot be.
        HvdtrainError: a run failed.
    """
    workers = sorted(set(options.workers))
    if not workers or workers[0] < 1:
        raise ConfigError(f"--workers {_listed(options.workers)}: expected numbers of workers such as 1,2,4")
    kinds = ("weak", "strong") if options.kind == "both" else (options.kind,)
    if "strong" in kinds and (odd := [k for k in workers if workers[-1] % k]):
        raise ConfigError(
            f"--workers {_listed(workers)}: strong scaling shares {workers[-1]} batches among the workers; expected "
            f"divisors of {workers[-1]}, got {odd[0]}",
            remedy="--kind weak, or such as --workers 1,2,4",
        )
    speeds: dict[str, list[Speed]] = {}
    threads = trials.threads_of_each(min(workers[-1], options.per_node or workers[-1]))

    def figure(name: str, trial: Trial) -> float:
        """Images per second of each worker."""
        speed = run(options.config, options.folder, trial, threads=threads, steps=options.steps)
        speeds.setdefault(name, []).append(speed)
        return speed.images_per_second / trial.workers

    contenders = _contenders(options, workers, kinds)
    figures = take_turns({name: partial(figure, name, trial) for name, trial in contenders.items()}, rounds)
    top = workers[-1]
    if len(kinds) == 2:  # one and the same
        speeds[f"strong-{top}"], figures[f"strong-{top}"] = speeds[f"weak-{top}"], figures[f"weak-{top}"]
    config = options.config
    return Result(
        kind="scaling",
        title=(
            f"training {config.model.name}, n = {config.data.batch_size}, {config.data.image_size} pixels, "
            f"{config.precision}, {threads} CPU threads each"
        ),
        unit="images/s/k",
        figures=figures,
        goals=_goals(figures, workers, kinds),
        notes=_notes(options, workers, kinds),
        details=_details(options, workers, kinds, speeds),
    )


def _contenders(options: Options, workers: Sequence[int], kinds: Sequence[str]) -> dict[str, Trial]:
    launcher, most = tuple(shlex.split(options.launcher)), workers[-1]
    per_node = options.per_node or most
    found = {}
    for kind in kinds:
        for k in workers:
            if kind == "weak" or k < most or len(kinds) == 1:
                micro_batches = most // k if kind == "strong" else 1
                found[f"{kind}-{k}"] = Trial(k, micro_batches=micro_batches, launcher=launcher, per_node=per_node)
    if not launcher:
        found |= {f"independent-{k}": Trial(k, independent=True) for k in workers if k > 1}
    return found


def _goals(figures: Rounds, workers: Sequence[int], kinds: Sequence[str]) -> tuple[Goal, ...]:
    base, more = workers[0], [k for k in workers if k > workers[0]]
    least = {"weak": LEAST_WEAK, "strong": None}
    against_base = [Goal(f"{kind}-{k}", f"{kind}-{base}", least[kind]) for kind in kinds for k in more]
    machine = [Goal(f"{kind}-{k}", f"independent-{k}", LEAST_OF_INDEPENDENT) for kind in kinds[:1] for k in workers]
    return (*against_base, *(goal for goal in machine if goal.bottom in figures))


def _notes(options: Options, workers: Sequence[int], kinds: Sequence[str]) -> tuple[str, ...]:
    base, most, n = workers[0], workers[-1], options.config.data.batch_size
    told = {
        "weak": f"weak-k / weak-{base} is E_w(k|{base}), weak scaling, n = {n} of each worker constant",
        "strong": f"strong-k / strong-{base} is E_s(k|{base}), strong scaling, kn = {most * n} constant; "
        f"strong-{most} and weak-{most} are the same runs",
    }
    return ("\n".join(told[kind] for kind in kinds),)


def _details(
    options: Options, workers: Sequence[int], kinds: Sequence[str], speeds: Mapping[str, Sequence[Speed]]
) -> dict[str, Any]:
    """What `hvdtrain report --scaling` reads: kind and points; and the same of the other contenders."""
    config = options.config

    def points(kind: str) -> list[dict[str, Any]]:
        """Images per second of all workers together."""
        return [
            {"workers": k, "rounds": [speed.images_per_second for speed in speeds[f"{kind}-{k}"]]}
            for k in workers
            if f"{kind}-{k}" in speeds
        ]

    others = {kind: points(kind) for kind in ("strong", "independent")}
    return {
        "kind": kinds[0],
        "model": config.model.name,
        "precision": config.precision,
        "batch_size": config.data.batch_size,
        "image_size": config.data.image_size,
        "device_name": next(iter(speeds.values()))[0].device_name,
        "points": points(kinds[0]),
        **{kind: found for kind, found in others.items() if found},
    }


def _listed(workers: Sequence[int]) -> str:
    return ",".join(map(str, workers))
