"""How a run ended, in one line that a batch script reads: `75 stopped by SIGUSR2 at step 120`.

Launchers hide it: mpirun's code is that of the worker that left first, horovodrun makes 1 of all. So the run leaves it
in its directory, an exit code and a message. Where there is none, the workers were killed without a word.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

NAME = "outcome"
MOST_CHARACTERS = 2000


def tell(run_dir: Path, code: int, message: str) -> None:
    """The first to tell is right: others may only see what came of it. What cannot be written is lost."""
    path = run_dir / NAME
    temporary = run_dir / f".{NAME}.{secrets.token_hex(8)}.tmp"
    line = " ".join(message.split())[:MOST_CHARACTERS]
    with suppress(OSError):
        temporary.write_text(f"{code} {line}\n", errors="replace")
    with suppress(OSError):
        os.link(temporary, path)  # fails where there is one
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def forget(run_dir: Path) -> None:
    """Before a run begins."""
    (run_dir / NAME).unlink(missing_ok=True)


def read(run_dir: Path) -> tuple[int, str] | None:
    """Exit code and message; None where nothing was told."""
    try:
        code, _, message = (run_dir / NAME).read_text(errors="replace").strip().partition(" ")
        return int(code), message
    except (OSError, ValueError):
        return None
