"""benchmarks/metrics_cost.py runs, measures the real thing, and holds it against its goals."""

import json
import subprocess
import sys
from pathlib import Path

import metrics_cost
from prometheus_client import generate_latest

PROGRAM = Path(metrics_cost.__file__)


def test_every_cost_has_figures_and_is_held_against_its_goal(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, PROGRAM, "--rounds", "2", "--steps", "20", "--scrapes", "1", "--json", figures]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    record = json.loads(figures.read_text())
    assert len(record["rounds"]) == 2
    for values in record["rounds"]:
        assert values.keys() == metrics_cost.GOALS.keys()
        assert all(value > 0 for value in values.values())
    lines = {line.split()[0]: line for line in ran.stdout.splitlines()[3:]}
    assert lines.keys() == metrics_cost.GOALS.keys()
    for name, goal in metrics_cost.GOALS.items():
        assert lines[name].endswith(("holds", "missed")) == (goal is not None)


def test_what_is_measured_is_a_whole_run_with_everything_on(tmp_path: Path) -> None:
    run = metrics_cost.Run(8, tmp_path / "events.jsonl")
    run.milliseconds_per_step(metrics_cost.REPORT_EVERY)
    value = run.metrics.registry.get_sample_value
    assert value("hvdtrain_steps_total") == value("hvdtrain_step_seconds_count") == metrics_cost.REPORT_EVERY
    assert value("hvdtrain_images_total") == 32 * metrics_cost.REPORT_EVERY
    assert value("hvdtrain_loss_scale") == 2**16
    page = generate_latest(run.everything_measured().registry).decode()
    for name in ("scaling_efficiency_ratio", "scaling_efficiency_low_ratio", "scaling_loss_ratio", "slowest_rank"):
        assert f"\nhvdtrain_{name}" in page
    run.close()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["report", "report", "end"]
    assert len(events[0]["ranks"]["lag"]) == 8
