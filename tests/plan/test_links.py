"""What benchmarks/links.py makes of its options: a run's settings, a prediction, the steps that count."""

import argparse
import json
from pathlib import Path

import links
import pytest

from hvdtrain.config.load import from_file

OPTIONS = argparse.Namespace(model="resnet18", pixels=64, batch=16, steps=12)


def test_a_run_is_of_so_many_steps_and_reports_that_do_not_count(tmp_path: Path) -> None:
    config = from_file(links.settings(OPTIONS, tmp_path, "together-2"))
    assert (config.model.name, config.data.source, config.data.batch_size) == ("resnet18", "synthetic", 16)
    assert (config.run.report_every, config.max_steps) == (links.WINDOW, 25)  # 2 reports of 5 before 12 steps, in 5s


def test_the_first_reports_do_not_count(tmp_path: Path) -> None:
    reports = [{"event": "report", "steps": 5, "step_seconds": seconds} for seconds in (9.0, 9.0, 1.0, 2.0)]
    (tmp_path / "events.jsonl").write_text("\n".join(json.dumps(each) for each in [{"event": "start"}, *reports]))
    assert links.step_seconds(tmp_path) == pytest.approx(1.5)


def test_a_slower_link_is_predicted_to_take_longer() -> None:
    fast, slow = (links.predict(OPTIONS, 2, 0.5, megabits) for megabits in (10_000, 200))
    assert 0.5 < fast["predicted_seconds"] < slow["predicted_seconds"]
    assert slow["predicted_efficiency"] < fast["predicted_efficiency"] < 1
