"""Commands that stand in for Slurm's, or for hvdtrain, in a folder that comes first on PATH."""

from pathlib import Path


def command(folder: Path, name: str, text: str) -> Path:
    """A bash script called `name`; what it is called with goes to name.log, a line each time."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    log = folder / f"{name}.log"
    file.write_text(f"#!/bin/bash\nprintf '%s ' \"$@\" >>'{log}'; echo >>'{log}'\n{text}\n")
    file.chmod(0o755)
    return file


def calls(folder: Path, name: str) -> list[str]:
    log = folder / f"{name}.log"
    return [line.strip() for line in log.read_text().splitlines()] if log.exists() else []
