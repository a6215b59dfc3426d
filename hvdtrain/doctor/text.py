"""What commands and tracebacks say, in one line."""

import re
import subprocess


def output(*command: str) -> str | None:
    """What a command prints, or None where it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def first_line(text: str) -> str:
    return next(iter(_lines(text)), "")


def error_line(text: str) -> str:
    """The last exception in what a process wrote to stderr; without one the first words, past an mpirun's dashes."""
    lines = _lines(text)
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return errors[-1] if errors else next(iter(lines), "")


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.replace("\0", "").splitlines())
    return [line for line in lines if line and not set(line) <= set("-=*")]
