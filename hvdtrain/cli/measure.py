"""reproduce."""

import os
import shutil
from argparse import Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain import log
from hvdtrain.cli.verbs import check_files
from hvdtrain.config.load import Parser
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs

REPRODUCE = """\
Repeat published experiments on this machine, from the runs to the tables.

    hvdtrain reproduce goyal-mini --quick
"""
GOYAL_MINI = """\
Tables 1 and 2a and figure 1 of Goyal et al. 2017, on handwritten digits: 120 runs.
What was interrupted goes on in the same --dir.

    hvdtrain reproduce goyal-mini --quick
    hvdtrain reproduce goyal-mini --dir runs/mini --jobs 2 --json results.json
"""


def add(verbs: "Verbs") -> None:
    shape = RawDescriptionHelpFormatter
    reproduce = verbs.add_parser(
        "reproduce", help="repeat published experiments on this machine", description=REPRODUCE, formatter_class=shape
    )
    experiments = reproduce.add_subparsers(metavar="EXPERIMENT", required=True, parser_class=Parser)
    mini = experiments.add_parser(
        "goyal-mini",
        help="Goyal et al. 2017, tables 1 and 2a and figure 1, in miniature: 74 minutes on two cores",
        description=GOYAL_MINI,
        formatter_class=shape,
    )
    mini.add_argument("--quick", action="store_true", help="two seeds, half the epochs, fewer minibatches: minutes")
    mini.add_argument("--dir", type=Path, metavar="DIR", help="where it works; what was interrupted goes on there")
    mini.add_argument("--seeds", metavar="SEEDS", help="10-19, or 0,3,5; default: 10-19, with --quick 10-11")
    mini.add_argument("--jobs", type=int, metavar="N", help="processes at a time; default: as many as cores")
    mini.add_argument("--json", type=Path, metavar="FILE", help="copy the results there")
    mini.set_defaults(parser=mini, verb=_goyal_mini)


def _goyal_mini(given: Namespace, _: Topology) -> int:
    from hvdtrain.reproduce import goyal_mini

    check_files(given.parser, given.json)
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
