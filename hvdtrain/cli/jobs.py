"""submit, jobs, logs, cancel, resume, wait: a run as a job of a cluster's, or of this machine's."""

import argparse
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain.config.load import add_options, from_options
from hvdtrain.distributed.topology import Topology
from hvdtrain.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_settings import CliSettingsSource

    from hvdtrain.cli.verbs import Verbs
    from hvdtrain.config.load import Parser
    from hvdtrain.config.schema import Config
    from hvdtrain.slurm.jobs import Job

SUBMIT = """\
Submit a training run to Slurm. The job requeues itself when it is preempted, at
its time limit and when its workers are killed, and goes on where it was.

    hvdtrain submit --config goyal_r50_8k --data.dir /imagenet --run.dir /runs \\
        --run.name r50 --job.nodes 32 --job.gpus_per_node 8 --job.time_limit 4:00:00

Exit codes: 0 submitted; 2 refused, by hvdtrain or by sbatch; 3 Slurm does not
answer, or the run directory cannot be written. With --wait: those of hvdtrain wait.
"""
JOBS = """\
The newest job of every run: its state in Slurm's words, how often it was
requeued, its nodes, and why it waits or how it ended.

    hvdtrain jobs --runs /shared/runs

Exit code: 0.
"""
LOGS = """\
What a run's jobs have printed, over all requeues and submissions.

    hvdtrain logs /shared/runs/r50 -f
    hvdtrain logs 4711 --rank 3

Exit codes: 0; 2 there is none yet, or no such run.
"""
CANCEL = """\
End a run's job, and wait until it has ended. The run stays, and can be resumed.

    hvdtrain cancel /shared/runs/r50

Exit codes: 0 it has ended, now or before; 3 it has not, or Slurm does not answer.
"""
RESUME = """\
Submit a run again: it goes on at its newest checkpoint. Settings of the job may
be others than before.

    hvdtrain resume /shared/runs/r50 --job.partition long --job.time_limit 1-00:00:00

Exit codes: those of hvdtrain submit.
"""
WAIT = """\
Wait until a run's job is over for good, across requeues.

    hvdtrain wait /shared/runs/r50 && hvdtrain report /shared/runs/r50

Exit codes: 0 the run is finished; 130 cancelled; 1 it ended without reporting an
outcome; else the run's own, 75 if it was preempted and not requeued.
"""


def add(verbs: "Verbs") -> None:
    submit = _verb(verbs, "submit", "submit a training run to Slurm, or to this machine", SUBMIT)
    options = add_options(submit)
    _add_place(submit)
    submit.add_argument("--wait", action="store_true", help="then wait for the end of the run")
    kind = submit.add_mutually_exclusive_group()
    kind.add_argument("--scaling", metavar="1,2,4", help="train shortly on so many nodes in turn, and report on it")
    kind.add_argument(
        "--bench", metavar="1,2,4", help="hvdtrain bench scaling on so many nodes, and bench allreduce on one"
    )
    kind.add_argument(
        "--prepare", type=Path, metavar="DIR", help="prepare the archives in DIR as data.dir instead of training"
    )
    submit.set_defaults(parser=submit, verb=lambda given, _: _submit(given, options))

    jobs = _verb(verbs, "jobs", "all jobs of a folder of runs", JOBS)
    _add_runs(jobs)
    jobs.add_argument("--json", action="store_true", help="machine-readable (JSON) output")
    jobs.set_defaults(parser=jobs, verb=_jobs)

    logs = _verb(verbs, "logs", "what a run's jobs have printed", LOGS)
    _add_run(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="stay, and show what comes, until the job ends")
    logs.add_argument("--rank", type=int, metavar="N", help="the log of this worker instead")
    logs.set_defaults(parser=logs, verb=_logs)

    cancel = _verb(verbs, "cancel", "end a run's job", CANCEL)
    _add_run(cancel)
    cancel.set_defaults(parser=cancel, verb=_cancel)

    resume = _verb(verbs, "resume", "submit a run again, to go on where it was", RESUME)
    settings = add_options(resume)
    for action in resume._actions:
        if action.option_strings and action.dest != "help" and not action.dest.startswith("job"):
            action.help = argparse.SUPPRESS
    _add_run(resume)
    _add_place(resume)
    resume.set_defaults(parser=resume, verb=lambda given, _: _resume(given, settings))

    wait = _verb(verbs, "wait", "wait for the end of a run; its exit code", WAIT)
    _add_run(wait)
    wait.set_defaults(parser=wait, verb=_wait)


def _verb(verbs: "Verbs", name: str, line: str, description: str) -> "Parser":
    shape = argparse.RawDescriptionHelpFormatter
    return verbs.add_parser(name, help=line, description=description, formatter_class=shape)


def _add_run(verb: "Parser") -> None:
    verb.add_argument("which", metavar="RUN", help="run directory, its name in --runs, or a job's id")
    _add_runs(verb)


def _add_runs(verb: "Parser") -> None:
    verb.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs; default %(default)s"
    )


def _add_place(verb: "Parser") -> None:
    verb.add_argument("--local", action="store_true", help="run it on this machine, in the background, without Slurm")
    verb.add_argument("--dry-run", action="store_true", help="print the batch script and touch nothing")


def _submit(given: Namespace, options: "CliSettingsSource[Config]") -> int:
    from hvdtrain.slurm import submit

    config = from_options(options, given)
    if given.scaling or given.bench or given.prepare:
        return _submit_auxiliary(config, given)
    config = submit.resolved(config)
    if given.dry_run:
        print(submit.text(config, on_this_machine=given.local), end="")
        return 0
    return _told(submit.submit(config, command=sys.argv, on_this_machine=given.local), given)


def _submit_auxiliary(config: "Config", given: Namespace) -> int:
    from hvdtrain.slurm import auxiliary, submit

    if given.local:
        given.parser.error("--local: expected without --scaling, --bench and --prepare")
    name = config.run.name or next(kind for kind in ("scaling", "bench", "prepare") if getattr(given, kind))
    config = submit.resolved(config.model_copy(update={"run": config.run.model_copy(update={"name": name})}))
    path = submit.program_folder(config)
    if given.scaling:
        config, nodes = auxiliary.for_scaling(config, given.scaling)
        batch = auxiliary.scaling(config, nodes, path=path)
    elif given.bench:
        config, nodes = auxiliary.for_benches(config, given.bench)
        batch = auxiliary.benches(config, nodes, path=path)
    else:
        config = auxiliary.for_preparing(config)
        batch = auxiliary.prepare(config, given.prepare.absolute(), path=path)
    if given.dry_run:
        print(batch, end="")
        return 0
    return _told(auxiliary.submit(config, batch, command=sys.argv), given)


def _told(runs: list[Path], given: Namespace) -> int:
    """What was submitted, and what to do next."""
    from hvdtrain.slurm import client, jobs, record

    for run in runs:
        newest = record.submissions(run)[-1]
        print(f"job {newest.id}: run {run}")
        script = run / record.SCRIPT
        if newest.kind == "slurm" and script.exists() and (why := client.possible(script, folder=run)):
            print(f"hvdtrain: it may never start: {why} → sinfo", file=sys.stderr)
    run = runs[0]
    print(f"  hvdtrain status {run} -f\n  hvdtrain logs {run} -f\n  hvdtrain cancel {run}", flush=True)
    if getattr(given, "wait", False):
        return max([job.exit_code for run in runs if (job := jobs.wait(run))], default=0)
    return 0


def _jobs(given: Namespace, _: Topology) -> int:
    from json import dumps

    from hvdtrain.slurm import jobs, text

    if not given.runs.is_dir():
        raise ConfigError(f"--runs {given.runs}: no such folder", remedy="name the folder of run directories")
    found = jobs.every(jobs.directories(given.runs))
    if given.json:
        print(dumps([jobs.to_json(job) for job in found], indent=2))
    elif found:
        print(text.table(found))
    else:
        print(f"no job of a run in {given.runs}")
    return 0


def _logs(given: Namespace, _: Topology) -> int:
    from hvdtrain.slurm import output

    run = _run_of(given)
    if given.rank is not None:
        file = output.log_file(run, given.rank)
    elif not given.follow and not output.files(run):
        job = _job_of(run)
        why = f" ({job.standing.reason})" if job.standing.reason else ""
        raise ConfigError(
            f"{run}: job {job.id} is {job.state}{why} and has printed nothing", remedy=f"hvdtrain logs {run} -f"
        )
    over = output.over(run) if given.follow else lambda: True
    files = (lambda: [file]) if given.rank is not None else (lambda: output.files(run))
    try:
        for part in output.written(files, over=over):
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
    except KeyboardInterrupt:  # the way to stop looking
        pass
    return 0


def _cancel(given: Namespace, _: Topology) -> int:
    from hvdtrain.errors import EnvironmentFault
    from hvdtrain.slurm import jobs, text

    run = _run_of(given)
    _job_of(run)
    job = jobs.cancel(run)
    assert job is not None
    if job.live and (job.away or job.state != "UNKNOWN"):
        raise EnvironmentFault(
            f"{run}: job {job.id} is still {job.state} {job.away}".rstrip(), remedy=f"scancel {job.id}"
        )
    print(text.line(job))
    return 0


def _resume(given: Namespace, options: "CliSettingsSource[Config]") -> int:
    from hvdtrain.config.schema import Config
    from hvdtrain.slurm import record, submit
    from hvdtrain.slurm.script import ARRAY

    run = _run_of(given)
    settings = {
        key for key, value in vars(given).items() if value is not None and key.split(".")[0] in Config.model_fields
    }
    if others := sorted(key for key in settings if key.split(".")[0] != "job") or ["config"] * bool(given.config):
        given.parser.error(f"--{others[0]}: a run is resumed as it is; expected --job.* alone")
    file = next((file for name in (record.CONFIG, "config.yaml") if (file := run / name).is_file()), None)
    if file is None:
        raise ConfigError(f"{run}: expected {record.CONFIG} or config.yaml, found neither", remedy="hvdtrain submit")
    given.config = str(file)
    config = from_options(options, given)
    if file.name != record.CONFIG:  # a task of an array goes on alone
        left = {name: value for name, value in config.job.sbatch.items() if name != ARRAY}
        config = config.model_copy(update={"job": config.job.model_copy(update={"sbatch": left})})
    # Where the run lies now, whatever it was called when it began.
    here = config.run.model_copy(update={"dir": run.resolve().parent, "name": run.resolve().name})
    as_job = config.elastic.model_copy(update={"enabled": False})  # whoever started it before
    config = submit.resolved(config.model_copy(update={"run": here, "resume": "auto", "elastic": as_job}))
    if given.dry_run:
        print(submit.text(config, on_this_machine=given.local), end="")
        return 0
    return _told(submit.submit(config, command=sys.argv, on_this_machine=given.local, again=True), given)


def _wait(given: Namespace, _: Topology) -> int:
    from hvdtrain.slurm import jobs, text

    run = _run_of(given)
    _job_of(run)
    job = jobs.wait(run)
    assert job is not None
    print(text.line(job), flush=True)
    return job.exit_code


def _run_of(given: Namespace) -> Path:
    from hvdtrain.slurm import jobs

    return jobs.find(given.which, runs=given.runs)


def _job_of(run: Path) -> "Job":
    from hvdtrain.slurm import jobs

    job = jobs.of(run)
    if job is None:
        raise ConfigError(
            f"{run}: this run was never submitted", remedy="hvdtrain status, or hvdtrain resume to submit it"
        )
    return job
