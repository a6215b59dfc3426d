"""How a run ended, in one line that a batch script reads: `75 stopped by SIGUSR2 at step 120`.

Launchers hide it: mpirun's code is that of the worker that left first, horovodrun makes 1 of all. So the run leaves it
in its directory, an exit code and a message. Where there is none, the workers were killed without a word.
"""

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NAME = "outcome"
MOST_CHARACTERS = 2000


@dataclass(frozen=True)
class Outcome:
    code: int
    message: str


def tell(run_dir: Path, code: int, message: str) -> None:
    """The first to tell is right: others may only see what came of it. What cannot be written is lost."""
    path = run_dir / NAME
    if os.path.lexists(path):  # a thousand workers that lose a peer need not write a thousand files to find that out
        return
    temporary = run_dir / f".{NAME}.{secrets.token_hex(8)}.tmp"
    line = " ".join(message.split())[:MOST_CHARACTERS]
    with suppress(OSError):
        temporary.write_text(f"{code} {line}\n", errors="replace")
        os.link(temporary, path)  # fails where there is one
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def forget(run_dir: Path) -> None:
    """Before a run begins."""
    (run_dir / NAME).unlink(missing_ok=True)


def read(run_dir: Path) -> Outcome | None:
    """None while a run goes on, and where it was killed."""
    try:
        with (run_dir / NAME).open("rb") as file:
            line = file.read(MOST_CHARACTERS + 10).decode(errors="replace").partition("\n")[0]
    except OSError:
        return None
    code, _, message = line.partition(" ")
    return Outcome(int(code), message) if code.isdecimal() and len(code) < 4 else None
