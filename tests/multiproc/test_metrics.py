"""What Prometheus would see of a run of two workers."""

import json
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hvdtrain.metrics import targets

from .conftest import MEASURED, Launch

pytestmark = pytest.mark.multiproc


def scrape(endpoint: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=5) as response:
        text = response.read().decode()
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


def test_targets_lead_to_rising_counters_on_every_rank(launch: Launch) -> None:
    job = launch("mpirun", 2, "--data.batch_size=4", "--epochs=50", MEASURED, name="scraped")
    job.until("the first steps", lambda: len(job.events("report")) > 3)
    groups = json.loads(targets.file(job.folder).read_text())
    assert [group["labels"] for group in groups] == [{"run": "scraped", "rank": r} for r in "01"]
    endpoints = [group["targets"][0] for group in groups]
    before = [scrape(endpoint) for endpoint in endpoints]
    step = len(job.events("report"))
    job.until("ten more steps", lambda: len(job.events("report")) > step + 10)
    for first, second in zip(before, map(scrape, endpoints), strict=True):
        assert second["hvdtrain_images_total"] > first["hvdtrain_images_total"] > 0
        assert second["hvdtrain_images_total"] == 4 * second["hvdtrain_steps_total"]
        assert second["hvdtrain_allreduce_payload_bytes_total"] > first["hvdtrain_allreduce_payload_bytes_total"] > 0
        assert second["hvdtrain_allreduce_wire_bytes_total"] == second["hvdtrain_allreduce_payload_bytes_total"]
        assert second["hvdtrain_worker_info"] == 1
    of_run, other = map(scrape, endpoints)
    assert of_run["hvdtrain_step_seconds_sum"] > of_run["hvdtrain_input_wait_seconds_sum"] > 0
    assert of_run["hvdtrain_loss"] > 0
    assert of_run["hvdtrain_learning_rate"] > 0
    assert of_run["hvdtrain_run_info"] == 1
    assert of_run["hvdtrain_scaling_efficiency_ratio"] > 0
    assert of_run["hvdtrain_world_size"] == 2
    assert "hvdtrain_loss" not in other
    job.process.terminate()
    job.wait()
