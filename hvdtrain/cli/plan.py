"""plan."""

import argparse
import json
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvdtrain.config.load import Parser
from hvdtrain.distributed.topology import Topology
from hvdtrain.plan.allreduce import ALGORITHMS
from hvdtrain.plan.ask import Ask, check_workers

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs
    from hvdtrain.plan.fit import Fit

PLAN = """\
How fast a run will be on so many workers, what limits it, how long it takes and
what it costs, before it is paid for; and of every input whether it was measured,
tabulated or assumed. Starts nothing, needs no GPU.

    hvdtrain plan --model resnet50 --gpus 256 --gpu p100 --link 50gbit
    hvdtrain plan --gpus 64 --gpu a100-80 --link 8x200gbit --precision bf16 --batch 256 --sweep
    hvdtrain plan --gpu v100 --link 100gbit --deadline 2h --price 2.5
    hvdtrain plan --gpus 16 --link 25gbit --images-per-second-per-gpu 362 --fit allreduce.json
    hvdtrain plan --gpus 64 --global-batch 2048 --link hdr --gpu a100-40 --precision tf32
    hvdtrain plan --validate --figure validation.png
"""


def add(verbs: "Verbs") -> None:
    plan = verbs.add_parser(
        "plan",
        help="images per second, efficiency, hours and cost on so many workers, before they are paid for",
        description=PLAN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = plan.add_argument_group("what is trained")
    what.add_argument("--model", default=Ask.model, metavar="NAME", help="network; default %(default)s")
    what.add_argument(
        "--batch", type=int, default=Ask.batch, metavar="N", help="images of a worker; default %(default)s"
    )
    what.add_argument(
        "--global-batch",
        type=int,
        metavar="KN",
        help="strong scaling: images of all workers together, shared among them",
    )
    what.add_argument(
        "--precision", default=Ask.precision, metavar="NAME", help="float32, tf32, fp16 or bf16; default %(default)s"
    )
    what.add_argument("--epochs", type=float, default=Ask.epochs, metavar="N", help="default %(default)s")
    what.add_argument(
        "--images", type=int, default=Ask.images, metavar="N", help="of an epoch; default ImageNet's %(default)s"
    )
    _machines(plan)
    measured = plan.add_argument_group("what was measured, which wins over tables")
    alone = measured.add_mutually_exclusive_group()
    alone.add_argument("--compute-seconds", type=float, metavar="S", help="a step of one worker alone")
    alone.add_argument("--images-per-second-per-gpu", type=float, metavar="X", help="of one worker alone")
    measured.add_argument("--input-rate", type=float, metavar="X", help="images/s that a node can read and decode")
    measured.add_argument(
        "--fit", type=Path, metavar="FILE", help="from hvdtrain bench allreduce: what sums take within a node"
    )
    answers = plan.add_argument_group("answers")
    answers.add_argument("--gpus", type=int, metavar="K", help="workers, one to a GPU")
    answers.add_argument(
        "--deadline", metavar="TIME", help="1h30m, 90min, 2d: the fewest workers that are done in time"
    )
    answers.add_argument(
        "--most-workers",
        type=int,
        default=Ask.most_workers,
        metavar="K",
        help="that --deadline tries; default %(default)s",
    )
    answers.add_argument("--sweep", action="store_true", help="a table over 1, 2, 4, … workers, up to --gpus")
    answers.add_argument("--price", type=float, metavar="P", help="of an hour of one GPU, in any currency")
    answers.add_argument("--validate", action="store_true", help="the planner beside all published measurements")
    answers.add_argument("--figure", type=Path, metavar="PNG", help="draw --sweep or --validate")
    answers.add_argument("--json", action="store_true", help="machine-readable (JSON) output")
    plan.set_defaults(parser=plan, verb=_plan)


def _machines(plan: Parser) -> None:
    on = plan.add_argument_group("on what")
    on.add_argument(
        "--gpu", default=Ask.gpu, metavar="NAME", help="p100, v100, a100-40, a100-80, h100, …; default %(default)s"
    )
    on.add_argument("--gpus-per-node", type=int, default=Ask.gpus_per_node, metavar="N", help="default %(default)s")
    on.add_argument(
        "--link",
        default=Ask.link,
        metavar="SPEED",
        help="a node's network: 50gbit, 100Gb/s, 8x200gbit, hdr; default %(default)s",
    )
    on.add_argument("--transport", choices=("rdma", "tcp"), help="default: rdma from 40 Gbit/s on")
    on.add_argument(
        "--within", metavar="LINK", help="between GPUs of a node: nvlink1 … nvlink4, pcie3 … pcie5; default the GPU's"
    )
    on.add_argument(
        "--algorithm",
        choices=ALGORITHMS,
        default=Ask.algorithm,
        help="of the sums; default %(default)s",
    )
    on.add_argument(
        "--bucket-mib",
        type=float,
        default=Ask.bucket_mib,
        metavar="MIB",
        help="gradients of a sum; default %(default)s",
    )
    on.add_argument("--wire", choices=("fp16",), help="gradients travel as that")


def _plan(given: Namespace, _: Topology) -> int:
    from hvdtrain.plan import capacity, figure, fit, record, text
    from hvdtrain.plan.setting import setting

    if given.validate:
        if given.figure:
            _write(given.figure, figure.validation())
        print(_json(record.validation()) if given.json else text.validation())
        return 0
    measured = fit.read(given.fit) if given.fit else None
    if given.gpus is not None:
        check_workers("--gpus", given.gpus)
    if measured and not (given.gpus or given.deadline):
        print(_json(measured.as_dict()) if given.json else text.fitted(measured))
        return 0
    if not (given.gpus or given.deadline):
        given.parser.error("say --gpus K for how many workers, or --deadline TIME for how many are needed")
    if given.figure and not given.sweep:
        given.parser.error("--figure draws what --sweep or --validate computes: add one of them")
    ask = _ask(given, measured)
    of = setting(ask)
    limit = capacity.meet(of, capacity.hours_of(given.deadline), ask.most_workers) if given.deadline else None
    found = capacity.predict(of, given.gpus) if given.gpus else None
    most = found or (limit.fastest if limit else None)
    swept = capacity.sweep(of, most.workers) if given.sweep and most else []
    if given.figure:
        _write(given.figure, figure.curve(swept))
    if given.json:
        print(_json(record.answer(ask, of, swept or ([most] if most else []), limit)))
        return 0
    blocks = [text.fitted(measured)] if measured else []
    blocks += [text.deadline(ask, of, limit)] if limit else []
    blocks += [text.answer(ask, of, found)] if found else []
    blocks += [text.curve(of, swept)] if swept else []
    print("\n\n".join(blocks))
    return 0


def _ask(given: Namespace, measured: "Fit | None") -> Ask:
    return Ask(**{f.name: getattr(given, f.name) for f in fields(Ask) if f.name != "fit"}, fit=measured)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1)


def _write(file: Path, picture: bytes) -> None:
    from hvdtrain.errors import ConfigError

    try:
        file.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"--figure {file}: {error.strerror}; wanted a file that can be written") from error
