"""status, report."""

import argparse
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain.cli.verbs import check_files
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs
    from hvdtrain.slurm.jobs import Job

STATUS = """\
How a run goes, from its own files: no Prometheus, no GPU. Of a run that was
submitted, first the state of its job, also while it waits.

    hvdtrain status /shared/runs/r50 -f

Exit codes: 0; 1 it was killed, and no job is to go on with it; 2 no such run.
"""
REPORT = """\
What a run's time went to, from the largest loss to the smallest, with the evidence
and what to try. Several runs stand side by side.

    hvdtrain report /shared/runs/r50
    hvdtrain report /shared/runs/r50 --html report.html
    hvdtrain report --scaling scaling.json --html proof.html
"""


def add(verbs: "Verbs") -> None:
    status = verbs.add_parser(
        "status",
        help="how a run goes, from its own files: no Prometheus, no GPU; exit code 1 if it was killed",
        description=STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    status.add_argument("run", metavar="RUN", help="run directory, its name in --runs, or a job's id")
    status.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs; default %(default)s"
    )
    status.add_argument("-f", "--follow", action="store_true", help="stay, and show every change until the run ends")
    status.add_argument("--json", action="store_true", help="machine-readable (JSON) output")
    status.set_defaults(parser=status, verb=_status)

    report = verbs.add_parser(
        "report",
        help="what a run's time went to, ranked, and what to try",
        description=REPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    report.add_argument("--json", action="store_true", help="machine-readable (JSON) output")
    report.set_defaults(parser=report, verb=_report)


def _status(given: Namespace, _: Topology) -> int:
    from hvdtrain.metrics import targets
    from hvdtrain.report import live
    from hvdtrain.slurm import jobs

    run = Path(given.run) if "/" in given.run or Path(given.run).exists() else jobs.find(given.run, runs=given.runs)
    targets.sweep(targets.file(run.resolve()).parent)
    if not (job := jobs.of(run)):
        return live.status(run, follow=given.follow, json=given.json)
    try:
        return _follow_job(run, json=given.json) if given.follow else _status_of_job(job, json=given.json)
    except KeyboardInterrupt:  # the way to stop looking
        return 0


def _status_of_job(job: "Job", *, json: bool) -> int:
    """The job, and the run if it has got so far. A run that was killed and waits to go on is no failure."""
    from json import dumps

    from hvdtrain.report import live
    from hvdtrain.slurm import jobs, text

    begun = live.has_begun(job.run_dir)
    if json:
        now = live.now(job.run_dir, job_over=not job.live) if begun else {"run": job.run_dir.resolve().name}
        print(dumps({**now, "job": jobs.to_json(job)}, indent=2))
        killed = begun and now["state"] == "killed"
    else:
        print(text.line(job), flush=True)
        killed = begun and live.status(job.run_dir, job_over=not job.live) == 1
    return 1 if killed and not job.live else 0


def _follow_job(run: Path, *, json: bool) -> int:
    """Over all its starts: a line when the job's state changes, and the run while it runs."""
    from json import dumps

    from hvdtrain.report import live
    from hvdtrain.slurm import jobs, text

    told = "", ""
    while job := jobs.of(run):
        line = text.line(job)
        if (job.id, job.state) != told:
            print(dumps({"job": jobs.to_json(job)}) if json else line, flush=True)
            told = job.id, job.state
        if not job.live or (job.state == "UNKNOWN" and not job.away):
            break
        if job.state == "RUNNING" and live.goes_on(run):
            live.status(run, follow=True, json=json, going_on=jobs.running(run))
        time.sleep(jobs.OFTEN_SECONDS)
    over = job is not None and not job.live
    return 0 if not live.has_begun(run) else live.status(run, json=json, job_over=over)


def _report(given: Namespace, _: Topology) -> int:
    from hvdtrain.report.page import report

    if not given.runs and not given.scaling:
        given.parser.error("nothing to report on: expected a run directory, or --scaling FILE")
    if given.last is not None and given.last < 1:
        given.parser.error(f"--last {given.last}: expected 1 at least")
    check_files(given.parser, given.html)
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
    if given.html and not given.json:
        print(f"\npage         {given.html}")
    return 0
