"""The commands of the pages under docs/: read, checked against the command line, and run on this machine.

A command is a line of a console block that begins with `$ `, with the lines that a backslash joins to it. A comment in
the line before its block says what is special about the block:

    <!-- not run: a cluster of 32 nodes; dry: config -->   here it cannot run. Of each command, this is run instead:
                                                            config: what `hvdtrain config` makes of its options;
                                                            --dry-run: the command with that; or any other command
    <!-- exit code: 75 -->                                  what its last command has to end with, in place of 0
"""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hvdtrain.cli import _parser
from hvdtrain.config.load import Parser, add_options, from_options
from hvdtrain.config.schema import Config
from hvdtrain.slurm.auxiliary import for_scaling
from hvdtrain.slurm.launcher import workers_per_node

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TIMEOUT_SECONDS = 240
MARK = re.compile(r"<!-- (not run|exit code): ?(.*?)(?:; dry: (.+))? -->")
SHELL = {"|", "&&", "||", ";", ">", ">>", "&", "<"}

# What stands on a page, and what is run for it here: the digits for ImageNet, two workers for many.
STANDS_FOR = {
    "/imagenet": "PLACE/imagenet",
    "/archives": "PLACE/archives",
    "/shared": "PLACE/shared",
    "data prepare": "data prepare --no-digest",  # the archives here have the form of ImageNet's, not their bytes
    "--config goyal_r50_256": "--config PLACE/digits.yaml",
    "--config goyal_r50_8k": "--config PLACE/digits.yaml",
    "-np 8": "-np 2",
    "--job.gpus_per_node 8": "--job.workers_per_node 2",
    "timeout --preserve-status -s USR1 30": "PLACE/until-checkpoints",  # whatever a machine does in half a minute
    "bench scaling --workers 1,2,4,8": "bench scaling --workers 1,2 --rounds 1 --steps 20",
    "bench allreduce --workers 8": "bench allreduce --workers 2 --model resnet18 --contenders ours --rounds 1",
}
# A whole run of two epochs, in seconds.
DIGITS = """\
epochs: 2
data: {batch_size: 16, image_size: 16, eval_resize: 1, crop_area: [0.6, 1], flip: 0, threads: 1}
model: {name: resnet8, zero_gamma: false, head_std: null}
optim: {base_lr: 0.1, reference_batch: 32, warmup_epochs: 1, decay_epochs: [1.5]}
run: {report_every: 4}
metrics: {baselines_dir: PLACE/baselines, baseline_steps: 4}
"""

UNTIL_CHECKPOINTS = """\
#!/bin/bash
"$@" &
pid=$!
until (($(ls -d PLACE/shared/runs/*/checkpoints/images-* 2>/dev/null | wc -l) >= 3)) || ! kill -0 $pid; do
    sleep 0.2
done
kill -USR1 $pid
wait $pid
"""


@dataclass(frozen=True)
class Command:
    page: str
    line: int
    text: str
    exit_code: int = 0
    not_run: str = ""
    """Why."""
    dry: str = ""

    @property
    def where(self) -> str:
        return f"docs/{self.page}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Tried:
    command: Command
    dry: bool


Tries = list[Tried]
TRIED = pytest.StashKey[Tries]()


def commands(text: str, page: str) -> list[Command]:
    """Of a page, in order.

    Raises:
        ValueError: a mark without a reason, or one that belongs to no block.
    """
    found: list[Command] = []
    marks: dict[str, re.Match[str]] = {}
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line == "```console":
            found += _block(lines, page, marks)
            marks = {}
        elif mark := MARK.fullmatch(line):
            if not mark[2].strip():
                raise ValueError(f"docs/{page}:{number}: {line}: expected a reason")
            marks[mark[1]] = mark
        elif marks or line.startswith(("<!-- not", "<!-- exit")):
            raise ValueError(f"docs/{page}:{number}: a mark belongs in the line before a console block")
        elif line.startswith("```"):
            _skip(lines)
    return found


def _block(lines: Iterator[tuple[int, str]], page: str, marks: Mapping[str, re.Match[str]]) -> list[Command]:
    found: list[Command] = []
    for number, line in lines:
        if line.startswith("```"):
            break
        if line.startswith("$ "):
            text = line[2:]
            while text.endswith("\\"):
                text = f"{text[:-1].rstrip()} {next(lines)[1].strip()}"
            found.append(Command(page, number, text))
    if "not run" in marks:
        found = [replace(one, not_run=marks["not run"][2], dry=marks["not run"][3] or "") for one in found]
    if "exit code" in marks:
        found[-1] = replace(found[-1], exit_code=int(marks["exit code"][2]))
    return found


def _skip(lines: Iterator[tuple[int, str]]) -> None:
    for _, line in lines:
        if line.startswith("```"):
            break


def parsers(parser: Parser | None = None, name: str = "hvdtrain") -> dict[str, Parser]:
    """Every verb's, by its full name: `hvdtrain data pack`."""
    parser = parser or _parser()
    found = {name: parser}
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for word, below in action.choices.items():
                found |= parsers(below, f"{name} {word}")
    return found


def words(command: Command) -> list[str]:
    """As a shell splits it, without its comment."""
    split = shlex.shlex(command.text, posix=True, punctuation_chars=True)
    split.whitespace_split = True
    return list(split)


def trainings(command: Command) -> list[tuple[Config, int]]:
    """The training runs that a command starts as it is printed, each with its number of workers."""
    found, launcher = [], list[str]()
    rest = iter(words(command))
    for word in rest:
        if word in SHELL:
            launcher = []
        elif launcher[-1:] == ["hvdtrain"] and word in ("train", "submit"):
            of_its_own = itertools.takewhile(lambda word: word not in SHELL, rest)
            given = _parser().parse_args([word, *(option for option in of_its_own if option != "…")])
            config = from_options(add_options(Parser()), given)
            if word == "train":
                counts = [int(launcher[launcher.index("-np") + 1]) if "-np" in launcher else 1]
            elif given.scaling:
                config, nodes = for_scaling(config, given.scaling)
                counts = [count * workers_per_node(config.job) for count in nodes]
            else:
                counts = [config.job.nodes * workers_per_node(config.job)] * (not given.prepare and not given.bench)
            found += [(config, count) for count in counts]
            launcher = []
        else:
            launcher.append(word)
    return found


def unknown(command: Command) -> list[str]:
    """Verbs and options of hvdtrain in it that do not exist."""
    known = parsers()
    wrong, verb = [], ""
    for word in words(command):
        if word == "hvdtrain":
            verb = word
        elif word in SHELL:
            verb = ""
        elif verb and f"{verb} {word}" in known:
            verb = f"{verb} {word}"
        elif verb and word.startswith("--"):
            option = word.split("=")[0]
            if option not in known[verb]._option_string_actions:
                wrong.append(f"{verb} {option}")
        elif verb and any(isinstance(action.choices, dict) for action in known[verb]._actions):
            wrong.append(f"{verb} {word}")
            verb = ""
        elif verb == "hvdtrain launch" and not word.replace(".", "").isdigit():
            verb = ""  # what follows is the launcher's own
    return wrong


class Place:
    """A folder in which a page is done, from its first command to its last."""

    def __init__(
        self, folder: Path, *, also: Mapping[str, str], environment: Mapping[str, str], on: Sequence[str] = ()
    ) -> None:
        """
        Args:
            also: stands for what, besides the table above.
            on: command that runs another one where this page belongs.
        """
        self._folder, self._on = folder, on
        self._stands_for = {**STANDS_FOR, **also}
        self._environment = {**os.environ, **environment, **_hvdtrain_of_here()}
        (folder / "shared" / "runs").mkdir(parents=True, exist_ok=True)
        (folder / "digits.yaml").write_text(DIGITS.replace("PLACE", str(folder)))
        (folder / "until-checkpoints").write_text(UNTIL_CHECKPOINTS.replace("PLACE", str(folder)))
        (folder / "until-checkpoints").chmod(0o755)
        for name in ("docker", "slurm"):
            (folder / name).symlink_to(ROOT / name)

    def as_run(self, text: str) -> str:
        longest_first = sorted(self._stands_for, key=len, reverse=True)
        pattern = "|".join(rf"(?<![\w/.]){re.escape(printed)}(?!\d)" for printed in longest_first)
        return re.sub(pattern, lambda match: self._stands_for[match[0]], text).replace("PLACE", str(self._folder))

    def do(self, command: Command, tries: Tries) -> None:
        """Run it, or what is to be run in its place; it has to end as the page says."""
        tries.append(Tried(command, dry=bool(command.not_run and command.dry)))
        if command.not_run and not command.dry:
            return
        text = self.as_run(command.text)
        wanted = command.exit_code
        if command.not_run:
            # Options and presets as printed: nothing is read or written, so nothing need stand for them.
            text, wanted = dry(command), 0
        ran = self.run(text)
        assert ran.returncode == wanted, (
            f"{command.where}\nended with {ran.returncode}, not {wanted}, run as\n{text}\n{ran.stdout}"
        )

    def end(self) -> None:
        """No job that was submitted on this machine is left."""
        for job in (self._folder / "shared" / "runs").glob("*/job.json"):
            self.run(f"hvdtrain cancel {shlex.quote(str(job.parent))}")

    def run(self, text: str) -> "subprocess.CompletedProcess[str]":
        ran = subprocess.run(
            [*self._on, "bash", "-o", "pipefail", "-c", text],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        print(f"$ {text}\n{ran.stdout}[{ran.returncode}]")  # pytest -rP shows it, for the page to print
        return ran


def dry(command: Command) -> str:
    if command.dry == "config":
        _, train, options = command.text.partition("hvdtrain train ")
        assert train, f"{command.where}: no hvdtrain train in it"
        return f"hvdtrain config {options}"
    if command.dry == "--dry-run":
        return f"{command.text} --dry-run"
    return command.dry


def summary(tries: Iterable[Tried]) -> str:
    """How many commands of the pages ran here, and how many could not and why."""
    tries = list(tries)
    left_out = [tried for tried in tries if tried.command.not_run]
    reasons = Counter(tried.command.not_run for tried in left_out)
    why = ": " + "; ".join(f"{count} {reason}" for reason, count in reasons.most_common()) if reasons else ""
    return (
        f"{len(tries) - len(left_out)} commands of docs/ ran, {len(left_out)} could not"
        f" ({sum(tried.dry for tried in left_out)} of them tried dry){why}"
    )


def _hvdtrain_of_here() -> dict[str, str]:
    """The one beside this Python, with this tree; as root Open MPI has to be told twice."""
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.geteuid() == 0 else {}
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(ROOT), *inherited])),
        "OMP_NUM_THREADS": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "COLUMNS": "100",
        **root,
    }
