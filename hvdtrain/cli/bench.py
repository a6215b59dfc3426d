"""bench: input, allreduce, step, scaling, all."""

from argparse import Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hvdtrain import log
from hvdtrain.cli.verbs import check_files
from hvdtrain.config.load import Parser, add_options, from_options
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    import argparse

    from pydantic_settings import CliSettingsSource

    from hvdtrain.bench.result import Result
    from hvdtrain.cli.verbs import Verb, Verbs
    from hvdtrain.config.schema import Config

    Benches = argparse._SubParsersAction[Parser]

ABOUT = """\
Measure this machine. Contenders take turns in rounds, the others stopped
meanwhile; what counts is the ratio of two within a round. Each prints its
figures and goals, and writes them with --json FILE and --figure FILE.png.

    hvdtrain bench all --dir runs/bench
"""
ALLREDUCE = """\
Bus bandwidth of the sum of a model's gradients over workers of this machine:
the program's own way, Horovod's fusion, raw MPI, Gloo, and a copy in memory.

    hvdtrain bench allreduce --workers 2 --json allreduce.json

The JSON has the seconds of single sums from 4 KiB to 64 MiB, too, for
hvdtrain plan.
"""
SCALING = """\
Images per second and efficiency of 1, 2, … workers, by training runs.

    hvdtrain bench scaling --config goyal_r50_256 --data.dir /imagenet \\
        --workers 1,2,4,8 --json scaling.json
    hvdtrain report --scaling scaling.json --html proof.html

weak: n of each worker constant. strong: kn constant, by micro-batches. Beside
them so many workers that know nothing of each other, unless --launcher says how
to start workers: on several hosts, --launcher 'mpirun --hostfile hosts -np {workers}'.
"""
STEP = """\
Images per second of the training step: the program's loop against the one of
PyTorch's tutorials, two workers against two that know nothing of each other,
Horovod's DistributedOptimizer, and torch's DistributedDataParallel.

    hvdtrain bench step --model resnet50 --batch 16 --precision bf16
"""
INPUT = """\
Images per second of input pipelines, alone and beside a training: the program's
own, torchvision's DataLoader, plain DALI, and decoding alone.

    hvdtrain bench input --data /imagenet

Without --data a few photographs of ImageNet's sizes are made of those inside
scikit-learn and scikit-image.
"""
ALL = """\
All benches with standard settings, one after the other: a quarter of an hour on
two CPU cores; --quick: a few minutes. Writes DIR/KIND.json and DIR/KIND.png.

    hvdtrain bench all --dir runs/bench

Exit codes: 0; 1 a bench failed, which does not stop the others.
"""


def add(verbs: "Verbs") -> None:
    shape = RawDescriptionHelpFormatter
    bench = verbs.add_parser("bench", help="measure this machine", description=ABOUT, formatter_class=shape)
    benches = bench.add_subparsers(metavar="BENCH", required=True, parser_class=Parser)
    _add_input(benches)
    _add_allreduce(benches)
    _add_step(benches)
    _add_scaling(benches)
    every = _bench(benches, "all", "all of them, with standard settings, and a table of all goals", ALL)
    every.add_argument("--dir", type=Path, required=True, metavar="DIR", help="where the results go")
    every.add_argument("--quick", action="store_true", help="fewer rounds, smaller models: whether all of it works")
    every.set_defaults(parser=every, verb=_all)


def _bench(benches: "Benches", name: str, line: str, description: str) -> Parser:
    return benches.add_parser(name, help=line, description=description, formatter_class=RawDescriptionHelpFormatter)


def _finish(bench: Parser, verb: "Verb", *, rounds: int) -> None:
    bench.add_argument("--rounds", type=int, default=rounds, metavar="N", help="turns of each; default: %(default)s")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write figures, conditions and versions there")
    bench.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the figures there")
    bench.set_defaults(parser=bench, verb=verb)


def _add_input(benches: "Benches") -> None:
    bench = _bench(benches, "input", "images per second of input pipelines", INPUT)
    bench.add_argument("--data", type=Path, metavar="DIR", help="folder with train/<class>/*")
    bench.add_argument("--image", type=int, default=224, metavar="PIXELS", help="default: %(default)s")
    bench.add_argument("--batch", type=int, default=64, metavar="N", help="images; default: %(default)s")
    bench.add_argument("--batches", type=int, default=16, metavar="N", help="timed in a turn; default: %(default)s")
    bench.add_argument("--threads", type=int, default=0, metavar="N", help="0: as many as cores; default: %(default)s")
    bench.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="that decodes; default: %(default)s")
    _contenders(bench)
    _finish(bench, _input, rounds=5)


def _add_allreduce(benches: "Benches") -> None:
    bench = _bench(benches, "allreduce", "bus bandwidth of the gradients' sum", ALLREDUCE)
    bench.add_argument("--workers", type=int, default=2, metavar="K", help="default: %(default)s")
    bench.add_argument("--model", default="resnet50", metavar="NAME", help="whose gradients; default: %(default)s")
    bench.add_argument("--mib", type=float, default=25.0, metavar="MIB", help="of a bucket; default: %(default)s")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    bench.add_argument("--threads", type=int, default=1, metavar="N", help="of each worker; default: %(default)s")
    bench.add_argument("--repetitions", type=int, default=10, metavar="N", help="in a turn; default: %(default)s")
    _contenders(bench)
    _finish(bench, _allreduce, rounds=6)


def _add_step(benches: "Benches") -> None:
    bench = _bench(benches, "step", "images per second of the training step", STEP)
    bench.add_argument("--model", default="resnet50", metavar="NAME", help="default: %(default)s")
    bench.add_argument("--batch", type=int, default=16, metavar="N", help="images of a worker; default: %(default)s")
    bench.add_argument("--image", type=int, default=224, metavar="PIXELS", help="default: %(default)s")
    bench.add_argument("--precision", choices=("float32", "bf16", "fp16"), default="bf16", help="default: %(default)s")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    bench.add_argument("--threads", type=int, default=1, metavar="N", help="of each worker; default: %(default)s")
    bench.add_argument("--steps", type=int, default=4, metavar="N", help="in a turn; default: %(default)s")
    bench.add_argument(
        "--starts",
        type=int,
        default=1,
        metavar="N",
        help="how often to start fresh processes, each time for all rounds; default: %(default)s",
    )
    _contenders(bench)
    _finish(bench, _step, rounds=6)


def _add_scaling(benches: "Benches") -> None:
    bench = _bench(benches, "scaling", "images per second and efficiency of 1, 2, … workers", SCALING)
    bench.add_argument("--workers", default="1,2", metavar="K,K", help="numbers of workers; default: %(default)s")
    bench.add_argument("--kind", choices=("weak", "strong", "both"), default="both", help="default: %(default)s")
    bench.add_argument("--steps", type=int, default=100, metavar="N", help="timed in a run; default: %(default)s")
    bench.add_argument("--dir", type=Path, metavar="DIR", help="where the runs go; default: a folder that is removed")
    bench.add_argument("--launcher", default="", metavar="WORDS", help="what starts {workers} workers; default: mpirun")
    bench.add_argument("--per-node", type=int, metavar="N", help="workers on a node; {nodes} are counted by it")
    options = add_options(bench)
    _finish(bench, lambda given, _: _scaling(given, options), rounds=5)


def _contenders(bench: Parser) -> None:
    bench.add_argument("--contenders", nargs="+", default=(), metavar="NAME", help="fewer than all")


def _input(given: Namespace, _: Topology) -> int:
    from hvdtrain.bench import input

    _check(given, "image", "batch", "batches")
    options = input.Options(
        data=given.data,
        image=given.image,
        batch=given.batch,
        batches=given.batches,
        threads=given.threads or input.Options().threads,
        device=given.device,
        contenders=tuple(given.contenders),
    )
    log.configure(0)
    return _tell(input.measure(options, given.rounds), given)


def _allreduce(given: Namespace, _: Topology) -> int:
    from hvdtrain.bench import allreduce

    _check(given, "mib", "threads", "repetitions")
    options = allreduce.Options(
        model=given.model,
        workers=given.workers,
        mib=given.mib,
        device=given.device,
        threads=given.threads,
        repetitions=given.repetitions,
        contenders=tuple(given.contenders),
    )
    log.configure(0)
    return _tell(allreduce.measure(options, given.rounds), given)


def _step(given: Namespace, _: Topology) -> int:
    _check(given, "batch", "image", "threads", "steps", "starts")
    from hvdtrain.bench import step

    options = step.Options(
        model=given.model,
        batch=given.batch,
        image=given.image,
        precision=given.precision,
        device=given.device,
        threads=given.threads,
        steps=given.steps,
        starts=given.starts,
        contenders=tuple(given.contenders),
    )
    log.configure(0)
    return _tell(step.measure(options, given.rounds), given)


def _scaling(given: Namespace, source: "CliSettingsSource[Config]") -> int:
    from hvdtrain.bench import scaling

    config = from_options(source, given)
    numbers = [text.strip() for text in given.workers.split(",")]
    if not all(text.isdecimal() and len(text) < 6 for text in numbers):
        given.parser.error(f"--workers {given.workers}: expected numbers of workers such as 1,2,4")
    _check(given, "steps")
    with TemporaryDirectory(prefix="hvdtrain-scaling-") as folder:
        options = scaling.Options(
            config,
            given.dir or Path(folder),
            workers=tuple(map(int, numbers)),
            steps=given.steps,
            kind=given.kind,
            launcher=given.launcher,
            per_node=given.per_node,
        )
        log.configure(0)
        return _tell(scaling.measure(options, given.rounds), given)


def _all(given: Namespace, _: Topology) -> int:
    from hvdtrain.bench import suite

    log.configure(0)
    return suite.run(given.dir, quick=given.quick)


def _check(given: Namespace, *names: str) -> None:
    check_files(given.parser, given.json, given.figure)
    for name in ("rounds", *names):
        if (value := getattr(given, name)) <= 0:
            given.parser.error(f"--{name} {value}: expected 1 at least")


def _tell(result: "Result", given: Namespace) -> int:
    """Print it, and write what is asked for."""
    print(result.text(), flush=True)
    result.save(given.json, given.figure)
    return 0
