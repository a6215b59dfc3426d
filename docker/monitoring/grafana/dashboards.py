"""Write the dashboards: dashboards/run.json of one run, dashboards/fleet.json of all of them.

python docker/monitoring/grafana/dashboards.py
"""

import json
from pathlib import Path

import fleet
import run
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent / "dashboards"


def texts() -> dict[str, str]:
    """The content of each file, by its name."""
    boards = {"run.json": run.dashboard(), "fleet.json": fleet.dashboard()}
    return {name: json.dumps(board.build(), cls=JSONEncoder, indent=2) + "\n" for name, board in boards.items()}


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
