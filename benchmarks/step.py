"""What a training step costs in each loop: `python benchmarks/step.py --help`.

Six contenders, same model, synthetic input, threads, precision, memory format and yielding:

    bare            one process, the loop that PyTorch's documentation shows
    ours-1          one process, hvdtrain's loop
    independent     two processes of ours-1 side by side that know nothing of each other: what this machine can give
    ours-2          two Horovod workers, hvdtrain's fixed buckets
    horovod-2       two Horovod workers, DistributedOptimizer
    ddp-2           two workers, torch DistributedDataParallel over gloo

All are started and warmed up first; then they run turn by turn, the others stopped by SIGSTOP, so that a change in the
machine's mood meets all of them. What counts is the ratio within a round. The two that need one process share one,
model and memory included: two processes of the same loop differ by some percent through the luck of their memory pages.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

RATIOS = (  # numerator, denominator, goal
    ("ours-1", "bare", 0.99),
    ("ours-2", "independent", 0.92),
    ("horovod-2", "independent", None),
    ("ddp-2", "independent", None),
)
GROUPS = {  # contenders that share their processes, and how many these are
    ("bare", "ours-1"): 1,
    ("independent",): 2,
    ("ours-2",): 2,
    ("horovod-2",): 2,
    ("ddp-2",): 2,
}
ON_ONE_GPU = [("bare", "ours-1")]  # NCCL takes one process per GPU
KEY = b"hvdtrain step benchmark"


def main() -> None:
    options = arguments()
    if options.worker:
        worker(options)
        return
    chosen = [names for names in GROUPS if not options.contenders or set(names) & set(options.contenders)]
    with Listener(("127.0.0.1", 0), authkey=KEY) as listener:
        groups = [Group(names, options, listener) for names in (ON_ONE_GPU if options.device == "cuda" else chosen)]
        try:
            turns = [(group, name) for group in groups for name in group.names]
            rounds = []
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                order = turns if number % 2 == 0 else turns[::-1]  # nobody always comes first
                rounds.append({name: group.images_per_second(name, options.steps) for group, name in order})
        finally:
            for group in groups:
                group.end()
    report(options, rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare training loops step by step.")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=16, help="images per worker and step")
    parser.add_argument("--image", type=int, default=224, help="pixels")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "float32"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each contender in a round")
    parser.add_argument("--contenders", nargs="+", choices=tuple(RUNNERS), help="fewer than all")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


class Group:
    """The processes of one contender or of several, stopped while others run."""

    def __init__(self, names: tuple[str, ...], options: argparse.Namespace, listener: Listener) -> None:
        self.names, self.batch, self.processes = names, options.batch, GROUPS[names]
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", *names, "--port", str(listener.address[1])]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
        if set(names) & {"ours-2", "horovod-2"}:
            environment |= {
                "OMPI_ALLOW_RUN_AS_ROOT": "1",
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                "OMPI_MCA_mpi_yield_when_idle": "1",
                "OMPI_MCA_rmaps_base_oversubscribe": "1",
            }
            mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
            command = [mpirun or "mpirun", "--bind-to", "none", "-np", "2", *command]
            self.started = [subprocess.Popen(command, env=environment)]
        else:
            places = [{"RANK": str(r), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"} for r in range(self.processes)]
            port = str(listener.address[1] + 1)
            self.started = [subprocess.Popen(command, env=environment | p | {"MASTER_PORT": port}) for p in places]
        self.workers: list[Connection] = [listener.accept() for _ in range(self.processes)]
        self.pids = [connection.recv() for connection in self.workers]
        for connection in self.workers:
            connection.recv()  # warmed up
        self._signal(signal.SIGSTOP)

    def images_per_second(self, name: str, steps: int) -> float:
        """Of all processes together, from the first one's begin to the last one's end."""
        self._signal(signal.SIGCONT)
        for connection in self.workers:
            connection.send((name, steps))
        spans = [connection.recv() for connection in self.workers]
        self._signal(signal.SIGSTOP)
        seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
        return steps * self.batch * self.processes / seconds

    def end(self) -> None:
        self._signal(signal.SIGCONT)
        for connection in self.workers:
            connection.close()
        for process in self.started:
            process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            os.kill(pid, number)


def worker(options: argparse.Namespace) -> None:
    connection = Client(("127.0.0.1", options.port), authkey=KEY)
    connection.send(os.getpid())
    setting = Setting.of(options)
    run = {name: RUNNERS[name](setting) for name in options.worker}
    for each in run.values():
        each(3)
    connection.send("warm")
    while True:
        try:
            name, steps = connection.recv()
        except EOFError:
            return
        begin = time.perf_counter()  # one clock for all processes of a machine
        run[name](steps)
        connection.send((begin, time.perf_counter()))


Runner = Callable[[int], None]  # does so many steps and returns when the device has done them


@dataclass(frozen=True)
class Setting:
    """What all contenders share."""

    model: Any
    optimizer: Any
    images: Any  # (n, 3, H, W), channels-last
    labels: Any  # (n,)
    autocast: Any  # dtype or None
    device: Any

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Setting":
        import torch

        from hvdtrain.model.build import build
        from hvdtrain.model.groups import parameter_groups
        from hvdtrain.optim.build import optimizer

        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        device = torch.device(options.device)
        # Horovod's DistributedOptimizer takes contiguous gradients only; the pictures, and with them the activations,
        # are channels-last for it too.
        weights = torch.contiguous_format if "horovod-2" in options.worker else torch.channels_last
        model = build(options.model, classes=1000, norm="batch", zero_gamma=True, head_std=0.01)
        model.to(device).to(memory_format=weights)
        groups = parameter_groups(model, weight_decay=1e-4, decay_biases=True)
        images = torch.randn(options.batch, 3, options.image, options.image, device=device)
        return cls(
            model,
            optimizer("sgd", groups, lr=0.01, momentum=0.9, nesterov=True, trust_coefficient=0),
            images.to(memory_format=torch.channels_last),
            torch.randint(0, 1000, (options.batch,), device=device),
            torch.bfloat16 if options.precision == "bf16" else None,
            device,
        )


def bare(setting: Setting, model: Any = None, optimizer: Any = None) -> Runner:
    """forward, loss, backward, step, as in PyTorch's tutorials."""
    import torch
    from torch.nn import functional

    model, optimizer = model or setting.model, optimizer or setting.optimizer

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(setting.device.type, setting.autocast, enabled=setting.autocast is not None):
                loss = functional.cross_entropy(model(setting.images), setting.labels)
            loss.backward()
            optimizer.step()
        loss.item()

    return run


def ours(setting: Setting, comm: Any = None, reducer: Any = None) -> Runner:
    """hvdtrain's own loop, with its metrics and reports."""
    import torch

    from hvdtrain.config.recipe import DataConfig
    from hvdtrain.config.schema import Config
    from hvdtrain.distributed.activity import Activity
    from hvdtrain.distributed.comm import SoloComm
    from hvdtrain.distributed.reducer import LocalReducer
    from hvdtrain.metrics.registry import Metrics
    from hvdtrain.train import clock
    from hvdtrain.train.build import Parts
    from hvdtrain.train.clock import StepClock
    from hvdtrain.train.data import Data, Machine
    from hvdtrain.train.environment import run_info
    from hvdtrain.train.loop import Cadence, train
    from hvdtrain.train.meters import Meters
    from hvdtrain.train.record import Record
    from hvdtrain.train.state import TrainState
    from hvdtrain.train.step import Arithmetic, Objective

    comm = comm or SoloComm()
    n = len(setting.labels)
    kn = n * comm.size

    config = Config(data=DataConfig(source="synthetic", batch_size=n, image_size=setting.images.shape[-1]))

    parts = Parts(
        state=TrainState(setting.model, setting.optimizer),
        reducer=reducer or LocalReducer(setting.model),
        arithmetic=Arithmetic(torch.float32, setting.autocast, channels_last=True),
        objective=Objective(kn),
        schedule=lambda _: 0.01,
        data=Data(config, comm, Machine(setting.device, threads=1)),
        clock=StepClock(clock.of(setting.device)),
        micro_batches=1,
        images_of_all_epochs=0,
        max_steps=None,
    )
    metrics = Metrics(
        rank=comm.rank,
        run_info=run_info(config, world_size=comm.size, global_batch=kn, commit=""),
        worker_info={"host": "", "device": str(setting.device), "device_name": ""},
    )
    record = Record(metrics, Activity(), comm.rank, images_per_epoch=10**9)
    meters = Meters(parts.clock)
    cadence = Cadence(report_steps=20, evaluate_epochs=90, evaluate_from=0, save_epochs=90)

    def run(steps: int) -> None:
        parts.images_of_all_epochs += steps * kn
        train(parts, comm, meters, record, cadence, None)

    return run


def ours_2(setting: Setting) -> Runner:
    from hvdtrain.distributed.activity import Activity
    from hvdtrain.distributed.buckets import GradientBuckets
    from hvdtrain.distributed.comm import HorovodComm
    from hvdtrain.distributed.tuning import tune

    tuning = tune(os.environ, buckets=True, bucket_mib=25, ring=True, yield_when_idle=True)
    os.environ.update(tuning.environment)
    comm = HorovodComm(expected_size=2, activity=Activity())
    return ours(setting, comm, GradientBuckets(setting.model.parameters(), comm, tuning.bucket_bytes))


def horovod_2(setting: Setting) -> Runner:
    import horovod.torch as hvd

    hvd.init()
    optimizer = hvd.DistributedOptimizer(setting.optimizer, named_parameters=setting.model.named_parameters())
    return bare(setting, optimizer=optimizer)


def ddp_2(setting: Setting) -> Runner:
    import torch.distributed
    from torch.nn.parallel import DistributedDataParallel

    torch.distributed.init_process_group("gloo")
    model = DistributedDataParallel(setting.model, broadcast_buffers=False, gradient_as_bucket_view=True)
    return bare(setting, model=model)


RUNNERS: dict[str, Callable[[Setting], Runner]] = {
    "bare": bare,
    "ours-1": ours,
    "independent": ours,
    "ours-2": ours_2,
    "horovod-2": horovod_2,
    "ddp-2": ddp_2,
}


def report(options: argparse.Namespace, rounds: list[dict[str, float]]) -> None:
    import torch

    names = list(rounds[0])  # the first round's order is that of the docstring
    print(f"\n{options.model}, batch {options.batch}, {options.image} pixels, {options.precision}, {options.device}")
    print(f"{options.threads} threads per worker; {options.rounds} rounds of {options.steps} steps\n")
    print(f"{'contender':14}{'images/s':>10}{'min':>8}{'max':>8}")
    for name in names:
        speeds = [speeds[name] for speeds in rounds]
        print(f"{name:14}{statistics.median(speeds):>10.2f}{min(speeds):>8.2f}{max(speeds):>8.2f}")
    print(f"\n{'ratio':26}{'median':>8}{'min':>8}{'max':>8}{'goal':>8}")
    ratios = {}
    for top, bottom, goal in RATIOS:
        if {top, bottom} <= set(names):
            values = [speeds[top] / speeds[bottom] for speeds in rounds]
            ratios[f"{top} / {bottom}"] = values
            line = f"{top + ' / ' + bottom:26}{statistics.median(values):>8.3f}{min(values):>8.3f}{max(values):>8.3f}"
            print(
                line + (f"{goal:>8.2f}  {'holds' if statistics.median(values) >= goal else 'missed'}" if goal else "")
            )
    if options.json:
        given = {k: str(v) for k, v in vars(options).items() if k not in ("worker", "port", "json")}
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
        if options.device == "cuda":
            machine["gpu"] = torch.cuda.get_device_name()
        record = {"date": time.strftime("%Y-%m-%d"), "options": given, "machine": machine, "rounds": rounds}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
