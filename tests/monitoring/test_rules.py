"""Prometheus's configuration, recording rules and alerts, as promtool sees them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import MONITORING

RULES = [rule for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS = Path(__file__).with_name("rules.test.yml")
CASES = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test.get("alert_rule_test", [])]


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", MONITORING / "prometheus.yml"),
        ("check", "rules", MONITORING / "rules.yml"),
        ("test", "rules", TESTS),
    ],
    ids=lambda arguments: f"{arguments[0]}-{arguments[1]}",
)
def test_promtool_is_content(arguments: tuple[str, str, Path]) -> None:
    ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_seen_to_fire_and_not_to(alert: str) -> None:
    fired = [bool(case.get("exp_alerts")) for case in CASES if case["alertname"] == alert]
    assert set(fired) == {True, False}


@pytest.mark.parametrize("rule", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_of_which_run_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert "{{ $labels.run }}" in rule["annotations"]["summary"]
    assert re.search(r"hvdtrain (report|data)|--resume|logs/|metrics\.address", rule["annotations"]["description"])


def test_the_readme_has_a_row_for_every_alert() -> None:
    table = re.findall(r"^\| `(Hvdtrain\w+)` \| (\w+) \|", (MONITORING / "README.md").read_text(), flags=re.MULTILINE)
    assert table == [(name, rule["labels"]["severity"]) for name, rule in ALERTS.items()]
