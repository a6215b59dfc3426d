"""A real Prometheus watches a real run of two workers: every panel and every rule finds its data."""

import json
import math
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hvdtrain.metrics import targets

from ..multiproc.conftest import MEASURED, Job, Launch
from .conftest import MONITORING
from .test_rules import RULES

pytestmark = pytest.mark.multiproc

RUN = "r50"  # as in prometheus.yml
OF_DCGM = {"GPU utilisation", "Tensor cores active", "GPU memory in use", "PCIe traffic to the GPU"}  # no GPU, no data
GRAFANA = {"$run": RUN, "$__rate_interval": "15s"}
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Prometheus:
    port: int
    job: Job

    def get(self, path: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query whose value is a number."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return [series for series in found if not math.isnan(float(series["value"][1]))]

    def lacking(self, expressions: dict[str, str]) -> list[str]:
        """Names of those that find nothing, as soon as none does or the time is over."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while missing := [name for name, expr in expressions.items() if not self.query(expr)]:
            assert self.job.process.poll() is None, self.job.wait()[1]
            if time.monotonic() > deadline:
                break
            time.sleep(1)
        return missing


@pytest.fixture(scope="module")
def prometheus(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    job = launch("mpirun", 2, "--epochs=10000", "--data.batch_size=4", "--train.ema_decay=0.9", MEASURED, name=RUN)
    job.until("its targets were there", targets.file(job.folder).exists)
    port = free_port()
    options = [f"--config.file={configured(folder, job)}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    watching = Prometheus(port, job)
    try:
        job.until("Prometheus answered", lambda: answers(watching) or server.poll() is not None)
        assert server.poll() is None, (folder / "log").read_text()
        yield watching
    finally:
        for process in (job.process, server):
            process.terminate()
            process.communicate(timeout=60)


def configured(folder: Path, job: Job) -> Path:
    """Our prometheus.yml with shorter intervals, and with the folder of this job's runs in place of its own."""
    text = (MONITORING / "prometheus.yml").read_text()
    config = yaml.safe_load(text.replace("/shared/runs", str(job.folder.parent)))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(prometheus: Prometheus) -> bool:
    try:
        prometheus.query("up")
    except OSError:
        return False
    return True


def panel_queries(name: str) -> dict[str, str]:
    """The expression of every query by its panel's title and letter, with Grafana's variables filled in."""
    board = json.loads((MONITORING / "grafana" / "dashboards" / f"{name}.json").read_text())
    found = {}
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            expr = target["expr"]
            for variable, value in GRAFANA.items():
                expr = expr.replace(variable, value)
            found[f"{panel['title']}, {target['refId']}"] = expr
    return found


@pytest.mark.parametrize("name", ["run", "fleet"])
def test_every_panel_finds_its_data(prometheus: Prometheus, name: str) -> None:
    queries = panel_queries(name)
    without = {title for title in queries if title.rpartition(",")[0] in OF_DCGM}
    assert len(queries) - len(without) > 15
    assert prometheus.lacking({title: expr for title, expr in queries.items() if title not in without}) == []


def test_the_panels_of_dcgm_are_asked_without_a_fault(prometheus: Prometheus) -> None:
    queries = {title: expr for title, expr in panel_queries("run").items() if title.rpartition(",")[0] in OF_DCGM}
    assert {title: prometheus.query(expr) for title, expr in queries.items()} == {
        f"{title}, A": [] for title in OF_DCGM
    }


def test_every_recording_rule_yields_data_and_none_fails(prometheus: Prometheus) -> None:
    records = {rule["record"]: rule["record"] for rule in RULES if "record" in rule}
    assert prometheus.lacking(records) == []
    states = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert [(rule["name"], rule["lastError"]) for rule in states if rule.get("lastError")] == []
    assert len(states) == len(RULES)


def test_efficiency_names_its_baseline_and_is_one_with_its_losses(prometheus: Prometheus) -> None:
    assert prometheus.lacking({"efficiency": "hvdtrain_scaling_efficiency_ratio"}) == []
    (efficiency,) = prometheus.query("hvdtrain_scaling_efficiency_ratio")
    labels = {"run": RUN, "rank": "0", "kind": "weak", "baseline": "measured", "baseline_workers": "1"}
    assert labels.items() <= efficiency["metric"].items()
    (whole,) = prometheus.query(
        "hvdtrain_scaling_efficiency_ratio + on (run) sum by (run) (hvdtrain_scaling_loss_ratio)"
    )
    assert float(whole["value"][1]) == pytest.approx(1)


def test_labels_are_the_runs_own(prometheus: Prometheus) -> None:
    assert prometheus.lacking({"info": f'hvdtrain_run_info{{run="{RUN}", world_size="2"}}'}) == []
    assert prometheus.get("label/run/values", **{"match[]": "hvdtrain_run_info"}) == [RUN]
    assert "exported_run" not in prometheus.get("labels")
    assert {series["metric"]["rank"] for series in prometheus.query("hvdtrain_worker_info")} == {"0", "1"}
