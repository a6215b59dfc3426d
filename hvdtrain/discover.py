"""`hvdtrain-discover`: the hosts of an elastic run, for horovodrun --host-discovery-script.

horovodrun asks about once a second, and waits for the answer: nothing but the standard library is imported. What it
makes of an answer is in Horovod's runner/elastic/discovery.py. It puts names into a command of a shell, and never comes
back from a name that has no IPv4 address: no answer is printed that it could not use as a whole.
"""

import argparse
import itertools
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hvdtrain.errors import INTERRUPTED, ConfigError, EnvironmentFault, HvdtrainError

PROGRAM = "hvdtrain-discover"
ABOUT = """\
Print the hosts of an elastic run, a line `host:slots` each. horovodrun asks for them
about once a second:

    horovodrun --gloo -np 2 --min-np 1 --max-np 8 --elastic-timeout 600 \\
        --blacklist-cooldown-range 30 600 \\
        --host-discovery-script "hvdtrain-discover hosts" hvdtrain train --elastic ...

From a hostfile, as mpirun's: a line `host`, `host:8` or `host slots=8` each; `#`
begins a comment. Write a new file and mv it over the old one to grow or shrink the
run. From Slurm, the nodes of running jobs:

    hvdtrain-discover --slurm          of the job that horovodrun is in
    hvdtrain-discover --slurm r50      of all your jobs of that name: submit another one
                                       to grow the run, end one to shrink it

A node that Slurm calls down, drained, draining, failing or not responding is left
out. One that several of the jobs share has the slots of all.

A list is printed only if all of it is right, and every host has an IPv4 address; else
one line on stderr says what is wrong, with exit code 2 (what was asked for) or 3 (this
machine or Slurm). horovodrun ends if that happens the first time; later it says so,
and goes on with the list that it had.

When a worker fails, horovodrun blacklists its host, ends all workers on it and starts
none there, though the host is in this list. Without --blacklist-cooldown-range that is
for good, also if the host leaves the list and comes back. With
--blacklist-cooldown-range LOW HIGH (seconds, 1 to 3600) it is taken in again after its
n-th failure when 2^n LOW to (2^n + 1) LOW seconds are over, HIGH at most; failures are
never forgotten. With 30 600: after 60 to 90 s, 120 to 150 s, 240 to 270 s, 480 to
510 s, and 600 s from the fifth on. If all hosts of a run are blacklisted at a time,
the run ends.
"""
HELP = f"{PROGRAM} --help"
# What a shell and ssh take for a name alone.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
LINE = re.compile(r"([^\s:=]+)(?:\s*:\s*(\S+)|\s+slots\s*=\s*(\S+))?")
MOST_SLOTS = 1024  # of a host; more is a typing error that would start as many processes
ANSWER_SECONDS = 10.0
LEFT_OUT = ("down", "drain", "fail", "error", "inval", "reboot", "unknown")
"""What a node's state begins with. A star behind any state: it does not respond."""

Hosts = dict[str, int]
"""Slots by name, in the order in which they are printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list; the process's exit code."""
    try:
        given = parser().parse_args(arguments)
        hosts = asked_for(given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except HvdtrainError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(f"{host}:{slots}" for host, slots in hosts.items()))
    return 0


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, remedy=HELP)


def parser() -> Parser:
    made = Parser(
        prog=PROGRAM,
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-h] [--slots N] (HOSTFILE | --slurm [NAME])",
        allow_abbrev=False,
    )
    made.add_argument("hostfile", nargs="?", metavar="HOSTFILE", help="the file with a host in each line")
    made.add_argument(
        "--slurm", nargs="?", const="", metavar="NAME", help="nodes of this job, or of all your running jobs of a name"
    )
    made.add_argument(
        "--slots",
        metavar="N",
        help="workers on a host that does not say how many; default: 1. With --slurm, those on each node of a job;"
        " default: $SLURM_NTASKS_PER_NODE, else the GPUs per node that Slurm gave to it, else 1",
    )
    return made


def asked_for(given: argparse.Namespace) -> Hosts:
    """
    Raises:
        ConfigError: hosts or slots are not what they have to be.
        EnvironmentFault: a host has no address, or Slurm does not answer.
    """
    if (given.hostfile is None) == (given.slurm is None):
        got = "neither" if given.slurm is None else "both"
        raise ConfigError(f"got {got}, wanted a hostfile or --slurm", remedy=HELP)
    slots = None if given.slots is None else number(given.slots, "--slots")
    if given.hostfile is not None:
        return in_file(given.hostfile, slots or 1)
    return in_slurm(given.slurm, slots)


def in_file(file: str, default_slots: int) -> Hosts:
    """The hosts of a hostfile, in its order."""
    try:
        lines = Path(file).read_text(errors="replace").splitlines()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}, wanted a hostfile", remedy=f"ls -l {file}") from None
    hosts: Hosts = {}
    numbers: dict[str, int] = {}
    for line_number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        where = f"{file}:{line_number}"
        match = LINE.fullmatch(text)
        if match is None or not NAME.fullmatch(match[1]):
            raise ConfigError(f"{where}: got {text[:80]!r}, wanted host, host:8 or host slots=8", remedy=HELP)
        host, slots = match[1], match[2] or match[3]
        if before := numbers.get(host.lower()):
            raise ConfigError(f"{where}: got {host} again, wanted each host once", remedy=f"see {file}:{before}")
        numbers[host.lower()] = line_number
        hosts[host] = number(slots, f"{where}: slots") if slots else default_slots
    if not hosts:
        raise ConfigError(f"{file}: got no host, wanted one in each line", remedy=HELP)
    for host in hosts:
        resolve(host, f"{file}:{numbers[host.lower()]}")
    return hosts


def in_slurm(name: str, slots: int | None) -> Hosts:
    """The nodes of the job that this is in, or of this user's running jobs of a name, in the order of their names."""
    if name:
        which, whose = f"--user={os.getuid()}", f"running jobs of the name {name!r}"
    elif job := os.environ.get("SLURM_JOB_ID", ""):
        which, whose = f"--jobs={job}", f"job {job}, running"
    else:
        raise ConfigError(
            "got no $SLURM_JOB_ID, wanted --slurm inside a job, or --slurm NAME", remedy="squeue --me shows your jobs"
        )
    if slots is None and (said := os.environ.get("SLURM_NTASKS_PER_NODE")):
        slots = number(said, "SLURM_NTASKS_PER_NODE")
    hosts: Hosts = {}
    node_lists = []
    for line in ask("squeue", "--noheader", "--states=RUNNING", which, "--format=%N|%b|%j"):
        node_list, resources, job_name = line.split("|", 2)
        if name and job_name != name:
            continue
        node_lists.append(node_list)
        for node in expand(node_list):
            hosts[node] = hosts.get(node, 0) + (slots or gpus(resources) or _gpus_here() or 1)
    if not hosts:
        raise EnvironmentFault(f"squeue: got no node, wanted {whose}", remedy="squeue --me")
    format_of_nodes = ("--noheader", "--Node", "--all", "--format=%N|%T")
    rows = ask("sinfo", *format_of_nodes, f"--nodes={','.join(node_lists)}")
    states = {node: state.strip() for node, _, state in (row.partition("|") for row in rows)}
    usable = [node for node in sorted(hosts) if _usable(states.get(node, "unknown"))]
    if not usable:
        node, state = sorted(states.items())[0] if states else (sorted(hosts)[0], "unknown")
        raise EnvironmentFault(
            f"sinfo: got none of {len(hosts)} nodes in order ({node} is {state}), wanted one", remedy="sinfo -R"
        )
    for node in usable:
        resolve(node, "squeue")
    return {node: hosts[node] for node in usable}


def number(text: str, what: str) -> int:
    """
    Raises:
        ConfigError: it is no number of slots.
    """
    if re.fullmatch("[0-9]{1,4}", text, re.ASCII) and 1 <= int(text) <= MOST_SLOTS:
        return int(text)
    raise ConfigError(f"{what}: got {text[:40]!r}, wanted a whole number from 1 to {MOST_SLOTS}", remedy=HELP)


def resolve(host: str, where: str) -> None:
    """As horovodrun resolves it.

    Raises:
        EnvironmentFault: the host has no IPv4 address.
    """
    try:
        socket.gethostbyname(host)
    except (OSError, UnicodeError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "no name of a host"
        raise EnvironmentFault(
            f"{where}: got {host} ({why}), wanted a host with an IPv4 address", remedy=f"getent ahostsv4 {host}"
        ) from None


def ask(*command: str) -> list[str]:
    """The lines that a command of Slurm's answers.

    Raises:
        EnvironmentFault: it fails, or is not there.
    """
    # A person's own filters and columns are not ours.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SQUEUE_", "SINFO_"))}
    try:
        ran = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"got no answer within {ANSWER_SECONDS:g} s"
    except OSError as error:
        why = f"{error.strerror}{' on PATH' if isinstance(error, FileNotFoundError) else ''}"
    else:
        if ran.returncode == 0:
            return [line for line in ran.stdout.splitlines() if line.strip()]
        why = f"got {' '.join(ran.stderr.split())[:200] or f'exit code {ran.returncode}'}"
    raise EnvironmentFault(f"{command[0]}: {why}, wanted a list", remedy="sinfo shows whether Slurm answers")


def expand(nodes: str) -> list[str]:
    """Names out of Slurm's notation.

    >>> expand("login,n[08-10,12],r[1-2]c[3-4]")
    ['login', 'n08', 'n09', 'n10', 'n12', 'r1c3', 'r1c4', 'r2c3', 'r2c4']

    Raises:
        EnvironmentFault: it is none that is known here.
    """
    found = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        parts = re.split(r"\[([^\]]*)\]", word)  # a text, then ranges and texts in turn
        try:
            choices = [_in_ranges(part) if place % 2 else [part] for place, part in enumerate(parts)]
        except ValueError:
            choices = []
        names = ["".join(choice) for choice in itertools.product(*choices)]
        if not all(NAME.fullmatch(name) for name in names):
            raise EnvironmentFault(f"squeue: got nodes {word[:80]!r}, wanted such as n[1-4]", remedy="squeue --me")
        found += names
    return found


def _in_ranges(text: str) -> list[str]:
    found = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        found += [str(each).zfill(len(first)) for each in range(int(first), int(last or first) + 1)]
    return found


def gpus(resources: str) -> int:
    """GPUs per node, out of what a job asked for on each; 0 where it does not say.

    >>> [gpus(said) for said in ("gres:gpu:4", "gres/gpu:a100:8,gres/shard:2", "gpu", "gres/gpu=2", "N/A")]
    [4, 8, 1, 2, 0]
    """
    asked = [re.split("[:/=]", each.partition("(")[0]) for each in resources.split(",")]
    return sum(int(words[-1]) if words[-1].isdecimal() else 1 for words in asked if "gpu" in words)


def _gpus_here() -> int:
    """On the node of the job that this is in, where it did not ask for them by the node."""
    said = os.environ.get("SLURM_GPUS_ON_NODE", "")
    return int(said) if said.isdecimal() else 0


def _usable(state: str) -> bool:
    return not state.lower().startswith(LEFT_OUT) and "*" not in state


if __name__ == "__main__":
    sys.exit(main())
