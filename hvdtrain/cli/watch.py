"""status, report."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs


def add(verbs: "Verbs") -> None:
    status = verbs.add_parser(
        "status", help="how a run goes, from its own files: no Prometheus, no GPU; exit code 1 if it was killed"
    )
    status.add_argument("run", type=Path, metavar="RUN", help="run directory")
    status.add_argument("-f", "--follow", action="store_true", help="stay, and show every change until the run ends")
    status.add_argument("--json", action="store_true", help="the same for machines")
    status.set_defaults(parser=status, verb=_status)

    report = verbs.add_parser("report", help="what a run's time went to, ranked, and what to try")
    report.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run directories; several stand side by side")
    report.add_argument("--html", type=Path, metavar="FILE", help="write a page with figures, complete in itself")
    report.add_argument(
        "--scaling", type=Path, metavar="JSON", help="file from hvdtrain bench scaling --json: adds efficiency over k"
    )
    report.add_argument(
        "--timeline",
        type=Path,
        metavar="JSON",
        help="file from HOROVOD_TIMELINE=FILE: adds a table of the gradient buckets",
    )
    report.add_argument(
        "--last", type=int, metavar="N", help="only the last N reports of a run, one every run.report_every steps"
    )
    report.add_argument("--json", action="store_true", help="the same for machines")
    report.set_defaults(parser=report, verb=_report)


def _status(given: Namespace, _: Topology) -> int:
    from hvdtrain.metrics import targets
    from hvdtrain.report.live import status

    targets.sweep(targets.file(given.run.resolve()).parent)
    return status(given.run, follow=given.follow, json=given.json)


def _report(given: Namespace, _: Topology) -> int:
    from hvdtrain.report.page import report

    if not given.runs and not given.scaling:
        given.parser.error("nothing to report on: expected a run directory, or --scaling FILE")
    if given.last is not None and given.last < 1:
        given.parser.error(f"--last {given.last}: expected 1 at least")
    print(
        report(
            given.runs,
            html=given.html,
            as_json=given.json,
            timeline=given.timeline,
            scaling=given.scaling,
            last=given.last,
        ),
        flush=True,
    )
    return 0
