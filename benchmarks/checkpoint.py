"""What a save costs a run: `python benchmarks/checkpoint.py --help`.

    background   hvdtrain's: the state is copied, and written while training goes on
    foreground   the same files, written while training stands still
    torch.save   in place, while training stands still: neither durable nor whole if it is interrupted

ResNet-50 with momentum, a worker alone. Each contender saves once and then takes some steps, enough for the save to be
durable within them; its cost is the time of all that above the time of as many steps without a save, in steps. So what
the background takes away from the steps counts too. They take turns, and between them come the steps without a save.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hvdtrain import provenance
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.checkpoint.writer import Saved, Writer
from hvdtrain.config.recipe import DataConfig
from hvdtrain.config.schema import Config
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.train.build import Parts, build
from hvdtrain.train.data import Machine
from hvdtrain.train.loop import take_step

GOAL_STEPS = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what saving a checkpoint costs.")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="after each save")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that compute")
    parser.add_argument("--dir", type=Path, default=None, help="where to save; a temporary folder if not given")
    parser.add_argument("--json", type=Path, help="write the figures of every round there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        report(options, Bench(options, Path(folder)).rounds(options.rounds))


class Bench:
    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.folder, self.steps = folder, options.steps
        data = DataConfig(source="synthetic", batch_size=options.batch, image_size=options.pixels)
        machine = Machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"), threads=1)
        self.parts: Parts = build(Config(data=data), SoloComm(), machine, bucket_bytes=25 * 2**20)
        self.batches = self.parts.data.training(0)
        self.saved: list[Saved] = []

    def rounds(self, count: int) -> list[dict[str, float]]:
        contenders: dict[str, Callable[[Writer], None]] = {
            "background": lambda writer: writer.save(self.parts.state.tensors(), self.manifest()),
            "foreground": lambda _: self.foreground(),
            "torch.save": lambda _: torch.save(self.parts.state.tensors(), self.folder / "in-place.pt"),
        }
        self.take_steps()
        figures = []
        with Writer(self.folder / "background", keep=1) as writer:
            for number in range(-1, count):  # the first round allocates, and does not count
                took = {name: self.seconds(writer, save) for name, save in contenders.items()}
                plain = statistics.mean(self.seconds(writer, None) for _ in range(2)) / self.steps
                self.saved += writer.take_saved()
                if number >= 0:
                    costs = {name: seconds / plain - self.steps for name, seconds in took.items()}
                    last = self.saved[-1]
                    details = {"step": plain, "stalled": last.stalled_seconds, "durable": last.seconds}
                    figures.append({**costs, **{f"{name} seconds": value for name, value in details.items()}})
        return figures

    def seconds(self, writer: Writer, save: Callable[[Writer], None] | None) -> float:
        """Of a save, if any, and the steps after it."""
        began = time.perf_counter()
        if save:
            save(writer)
        self.take_steps()
        took = time.perf_counter() - began
        waited = time.perf_counter()
        writer.finish()  # what is still being written would burden the next
        return took + time.perf_counter() - waited

    def take_steps(self) -> None:
        for _ in range(self.steps):
            step, _loss = take_step(self.parts, SoloComm(), self.batches, self.parts.reducer, lr=1e-4)
            self.parts.state.advance(step.images_seen)
        self.parts.clock.take()  # waits for the device

    def manifest(self) -> Manifest:
        state = self.parts.state
        return Manifest(state.images_seen, state.step, config_digest="", data_digest="")

    def foreground(self) -> None:
        folder = self.folder / "foreground"
        store.save(folder, self.parts.state.tensors(), self.manifest())
        store.prune(folder, 1)


def report(options: argparse.Namespace, rounds: list[dict[str, float]]) -> None:
    print(f"{options.rounds} rounds of {options.steps} steps after a save; batch {options.batch}\n")
    print(f"{'steps lost by a save':24}{'median':>9}{'min':>9}{'max':>9}{'goal':>9}")
    for name in ("background", "foreground", "torch.save"):
        values = [figures[name] for figures in rounds]
        median = statistics.median(values)
        goal = f"{GOAL_STEPS:>9}  {'holds' if median < GOAL_STEPS else 'missed'}" if name == "background" else ""
        print(f"{name:24}{median:>9.3f}{min(values):>9.3f}{max(values):>9.3f}{goal}")
    print()
    for name in ("step", "stalled", "durable"):
        values = [figures[f"{name} seconds"] for figures in rounds]
        print(f"{name + ', seconds':24}{statistics.median(values):>9.3f}{min(values):>9.3f}{max(values):>9.3f}")
    if options.json:
        told = {key: str(value) for key, value in vars(options).items() if key != "json"}
        machine = {"commit": provenance.revision(), "torch": torch.__version__, **provenance.hardware()}
        record = {"date": time.strftime("%Y-%m-%d"), "options": told, "machine": machine, "rounds": rounds}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
