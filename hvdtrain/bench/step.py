"""What a training step costs in each loop, of the same model, input, precision, memory format, threads and yielding.

    bare            one process, the loop that PyTorch's documentation shows
    ours-1          one process, hvdtrain's loop
    independent     two processes of ours-1 side by side that know nothing of each other: what this machine can give
    ours-2          two Horovod workers, hvdtrain's buckets
    horovod-2       two Horovod workers, DistributedOptimizer
    ddp-2           two workers, torch DistributedDataParallel over gloo

and ours-2 with or without one of IDEAS, which shows what that is worth.

The two that need one process share one, model and memory included: two processes of the same loop differ by some
percent through the luck of their memory pages. Horovod's DistributedOptimizer takes contiguous gradients only, so its
weights are contiguous, while its pictures, and with them its activations, are channels-last as everybody's. All of them
have the allocator of a worker (distributed/allocator.py).
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

from hvdtrain.bench import loops
from hvdtrain.bench.ideas import IDEAS, idea
from hvdtrain.bench.processes import Group, Listening, listening
from hvdtrain.bench.result import Result
from hvdtrain.bench.rounds import Goal, Rounds, known, take_turns, want_gpu

How = Literal["mpirun", "torch", "alone"]
STANDARD: dict[str, tuple[int, How]] = {  # workers, and how they find each other
    "bare": (1, "alone"),
    "ours-1": (1, "alone"),
    "independent": (2, "alone"),
    "ours-2": (2, "mpirun"),
    "horovod-2": (2, "mpirun"),
    "ddp-2": (2, "torch"),
}
TOGETHER = ("bare", "ours-1")  # in one process
CONTENDERS = (*STANDARD, *(f"ours-2 {name}" for name in IDEAS))
GOALS = (
    Goal("ours-1", "bare", 0.99),
    Goal("ours-2", "independent", 0.97),
    Goal("ours-2", "horovod-2", 1.0),
    Goal("ours-2", "ddp-2", 1.0),
    Goal("horovod-2", "independent"),
    Goal("ddp-2", "independent"),
    *(Goal("ours-2", f"ours-2 {name}") for name in IDEAS),
)


@dataclass(frozen=True)
class Options:
    model: str = "resnet50"
    batch: int = 16
    """Images of each worker in a step."""
    image: int = 224
    """Pixels of a side."""
    precision: Literal["bf16", "fp16", "float32"] = "bf16"
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: one process, for NCCL takes one per GPU."""
    threads: int = 1
    """Of each worker."""
    steps: int = 4
    """Of each contender in a round."""
    starts: int = 1
    """Of fresh processes, which take all rounds each time: where its memory lies makes a process some percent faster or
    slower for as long as it lives."""
    contenders: tuple[str, ...] = ()
    """Of CONTENDERS; empty: those of STANDARD."""

    @property
    def chosen(self) -> tuple[str, ...]:
        if self.device == "cuda":
            return TOGETHER
        return self.contenders or tuple(STANDARD)


def measure(options: Options, rounds: int) -> Result:
    """
    Raises:
        ConfigError: an unknown contender.
        HvdtrainError: a process of a contender ended.
    """
    known(options.contenders, CONTENDERS)
    if options.device == "cuda":
        want_gpu()
    figures: Rounds = {name: [] for name in options.chosen}
    for _ in range(options.starts):
        with listening() as listener, _groups(options, listener) as groups:
            turns = take_turns({name: _turn(group, name, options) for name, group in groups.items()}, rounds)
        for name, values in turns.items():
            figures[name] += values
    model = f"{options.model}, {options.batch} images of {options.image} pixels, {options.precision}"
    return Result(
        kind="step",
        title=f"a training step: {model}, {options.device}, {options.threads} threads per worker",
        unit="images/s",
        figures={name: figures[name] for name in CONTENDERS if name in figures},
        goals=GOALS,
        limit="independent" if "independent" in figures else None,
        notes=[f"{name}: {idea.what}" for name, idea in IDEAS.items() if f"ours-2 {name}" in figures],
        details={"conditions": asdict(options)},
    )


def _turn(group: Group, name: str, options: Options) -> Callable[[], float]:
    def images_per_second() -> float:
        return options.steps * options.batch * workers / group.seconds(name, options.steps)

    workers, _ = _workers(name)
    return images_per_second


def _workers(name: str) -> tuple[int, How]:
    return STANDARD[name.split(" ")[0]]


@contextmanager
def _groups(options: Options, listener: Listening) -> Iterator[dict[str, Group]]:
    """By contender."""
    together = tuple(name for name in options.chosen if name in TOGETHER)
    places = [together] if together else []
    places += [(name,) for name in options.chosen if name not in TOGETHER]
    groups: dict[str, Group] = {}
    try:
        for names in places:
            workers, how = _workers(names[0])
            arguments = [json.dumps(asdict(options)), *names]
            group = Group(
                loops.__name__,
                arguments,
                listener,
                workers=workers,
                how=how,
                threads=options.threads,
                variables=idea(names[0]).variables,
            )
            groups |= dict.fromkeys(names, group)
        yield groups
    finally:
        for group in set(groups.values()):
            group.end()
