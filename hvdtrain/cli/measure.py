"""bench, reproduce."""

import os
import shutil
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hvdtrain import log
from hvdtrain.config.load import Parser, add_options, from_options
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from pydantic_settings import CliSettingsSource

    from hvdtrain.cli.verbs import Verbs
    from hvdtrain.config.schema import Config


def add(verbs: "Verbs") -> None:
    bench = verbs.add_parser("bench", help="measure this machine")
    benches = bench.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    scaling = benches.add_parser(
        "scaling", help="images per second and efficiency of 1, 2, … workers, by training runs"
    )
    scaling.add_argument("--workers", default="1,2", metavar="K,K", help="numbers of workers; default: %(default)s")
    scaling.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each; default: %(default)s")
    scaling.add_argument(
        "--steps", type=int, default=100, metavar="N", help="timed steps of a run; default: %(default)s"
    )
    scaling.add_argument("--dir", type=Path, metavar="DIR", help="where the runs go; default: a folder that is removed")
    scaling.add_argument(
        "--json", type=Path, metavar="FILE", help="write the speeds there, for hvdtrain report --scaling"
    )
    options = add_options(scaling)
    scaling.set_defaults(parser=scaling, verb=lambda given, _: _scaling(given, options))

    reproduce = verbs.add_parser("reproduce", help="repeat published experiments on this machine")
    experiments = reproduce.add_subparsers(metavar="EXPERIMENT", required=True, parser_class=Parser)
    mini = experiments.add_parser(
        "goyal-mini", help="Goyal et al. 2017, tables 1 and 2a and figure 1, in miniature: about an hour on two cores"
    )
    mini.add_argument("--quick", action="store_true", help="two seeds, half the epochs, fewer minibatches: minutes")
    mini.add_argument("--dir", type=Path, metavar="DIR", help="where it works; what was interrupted goes on there")
    mini.add_argument("--seeds", metavar="SEEDS", help="10-19, or 0,3,5; default: 10-19, with --quick 10-11")
    mini.add_argument("--jobs", type=int, metavar="N", help="processes at a time; default: as many as cores")
    mini.add_argument("--json", type=Path, metavar="FILE", help="copy the results there")
    mini.set_defaults(parser=mini, verb=_goyal_mini)


def _scaling(given: Namespace, options: "CliSettingsSource[Config]") -> int:
    from hvdtrain.bench import scaling
    from hvdtrain.report.page import report

    config = from_options(options, given)
    numbers = [text.strip() for text in given.workers.split(",")]
    workers = sorted({int(text) for text in numbers if text.isdecimal()})
    if not all(map(str.isdecimal, numbers)) or workers[0] < 1 or given.rounds < 1 or given.steps < 1:
        wrong = f"--workers {given.workers} --rounds {given.rounds} --steps {given.steps}"
        given.parser.error(f"{wrong}: expected such as --workers 1,2 --rounds 5 --steps 100")
    log.configure(0)
    with TemporaryDirectory(prefix="hvdtrain-scaling-") as folder:
        points = scaling.measure(
            config, given.dir or Path(folder), workers=workers, rounds=given.rounds, steps=given.steps
        )
        file = given.json or Path(folder) / "scaling.json"
        scaling.save(file, points, config)
        print(report([], html=None, as_json=False, timeline=None, scaling=file, last=None), flush=True)
    return 0


def _goyal_mini(given: Namespace, _: Topology) -> int:
    from hvdtrain.reproduce import goyal_mini

    jobs = given.jobs or len(os.sched_getaffinity(0))
    if jobs < 1:
        given.parser.error(f"--jobs {jobs}: expected 1 at least")
    folder = given.dir or goyal_mini.default_folder(quick=given.quick)
    seeds = goyal_mini.parse_seeds(given.seeds or (goyal_mini.QUICK_SEEDS if given.quick else goyal_mini.SEEDS))
    log.configure(0)
    print(goyal_mini.reproduce(folder, seeds=seeds, quick=given.quick, jobs=jobs), flush=True)
    if given.json:
        shutil.copyfile(folder / "results.json", given.json)
    return 0
