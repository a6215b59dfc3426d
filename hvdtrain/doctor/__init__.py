"""Would a run work here, and if not, why: every part that one leans on, looked at one by one.

What loads a big library is asked in a process of its own: no broken import, no crash in a shared library and no MPI
that refuses to start can take the table with it, and nothing is loaded where the table is made.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hvdtrain.doctor import machine, mpi, probe, software, variables
from hvdtrain.doctor.finding import Finding


def usable(findings: Sequence[Finding]) -> bool:
    """True if no finding stands against a run."""
    return all(finding.ok is not False for finding in findings)


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps({"usable": usable(findings), "findings": [asdict(f) for f in findings]}, indent=2)


def render(findings: Sequence[Finding]) -> str:
    """The table for people; a remedy stands under what it is for, where a narrow screen has room for it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    marks = {True: "[green]ok[/]", None: "[dim]--[/]", False: "[red]no[/]"}
    for finding in findings:
        table.add_row(marks[finding.ok], finding.name, escape(finding.value))
        if finding.remedy:
            table.add_row("", "", f"[yellow]→ {escape(finding.remedy)}[/]")
    console = Console()
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def examine() -> list[Finding]:
    """Every finding, in the order in which one leans on the next. Takes seconds: two workers are really started."""
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(probe.ask, names) for names in (("torch", "horovod", "torchvision"), ("mpi4py", "dali"))]
        facts = {name: found for answer in asked for name, found in answer.result().items()}
    launcher = mpi.Launcher.find()
    findings = [
        software.python(),
        software.torch_build(facts["torch"]),
        software.gpu(facts["torch"]),
        software.toolkit(facts["torch"]),
        software.horovod(facts["horovod"], facts["torch"]),
        mpi.mpirun(launcher, facts["horovod"]),
        mpi.mpi_library(facts["horovod"], facts["mpi4py"]),
    ]
    findings += [
        mpi.workers(launcher, ready=usable(findings)),
        variables.tuning(os.environ, on_cpu=not facts["torch"].get("devices")),
        software.dali(facts["dali"]),
        software.torchvision(facts["torchvision"]),
        machine.cores(),
        machine.memory(),
        machine.open_files(),
        machine.shared_memory(Path("/dev/shm"), gpus=len(facts["torch"].get("devices", ()))),
        machine.slurm(),
    ]
    return findings
