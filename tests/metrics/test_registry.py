"""The table of series: names, kinds and first values, as Prometheus reads them."""

import math
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from hvdtrain.metrics.breakdown import PARTS
from hvdtrain.metrics.efficiency import CAUSES
from hvdtrain.metrics.registry import Metrics, RunMetrics
from hvdtrain.metrics.series import rows

RUN = {"run": "r1", "model": "resnet8", "slurm_job_id": ""}
WORKER = {"host": "node7", "device": "cpu", "device_name": "x86_64"}
AGAINST = {"kind": "weak", "baseline": "measured", "baseline_workers": "1"}
TABLE = {**rows(Metrics), **rows(RunMetrics)}


def metrics(rank: int = 0) -> Metrics:
    return Metrics(rank=rank, run_info=RUN, worker_info=WORKER)


@pytest.fixture
def first() -> Metrics:
    return metrics()


@pytest.fixture
def run(first: Metrics) -> RunMetrics:
    assert first.run
    return first.run


def value(of: Metrics, name: str, **labels: str) -> float | None:
    return of.registry.get_sample_value(name, labels)


def samples(of: Metrics) -> Iterator[Sample]:
    for family in text_string_to_metric_families(generate_latest(of.registry).decode()):
        yield from family.samples


def measure_everything(of: Metrics) -> None:
    """Give each labelled gauge all the labels that it may have."""
    if run := of.run:
        for gauge in (run.efficiency, run.efficiency_low, run.efficiency_high):
            gauge.labels(**AGAINST).set(0.5)
        for cause in CAUSES:
            run.scaling_loss.labels(cause).set(0.1)


def test_counters_count(first: Metrics, run: RunMetrics) -> None:
    for _ in range(3):
        first.images.inc(32)
        first.steps.inc()
        first.part.labels("input").inc(0.25)
    for overflown in (True, False, True):
        run.overflows.inc(overflown)
    assert value(first, "hvdtrain_steps_overflown_total") == 2
    assert value(first, "hvdtrain_images_total") == 96
    assert value(first, "hvdtrain_steps_total") == 3
    assert value(first, "hvdtrain_step_part_seconds_total", part="input") == 0.75


@pytest.mark.parametrize("attribute", [name for name, row in TABLE.items() if row.kind is Histogram])
def test_times_fall_into_buckets_that_rise_and_hold_all_of_them(attribute: str, first: Metrics) -> None:
    row = TABLE[attribute]
    assert list(row.buckets) == sorted(set(row.buckets))
    for seconds in (0.0, row.buckets[0], row.buckets[-1], 1e6):
        getattr(first.run, attribute).observe(seconds)
    assert value(first, f"{row.name}_bucket", le=str(float(row.buckets[0]))) == 2
    assert value(first, f"{row.name}_bucket", le=str(float(row.buckets[-1]))) == 3
    assert value(first, f"{row.name}_bucket", le="+Inf") == value(first, f"{row.name}_count") == 4
    assert value(first, f"{row.name}_sum") == row.buckets[0] + row.buckets[-1] + 1e6


@pytest.mark.parametrize("attribute", [name for name, row in TABLE.items() if row.kind is Gauge and not row.labels])
def test_a_gauge_is_no_number_until_it_is_measured(attribute: str, first: Metrics) -> None:
    before = value(first, TABLE[attribute].exported)
    assert before is not None
    assert math.isnan(before)
    getattr(first if hasattr(Metrics, attribute) else first.run, attribute).set(0.625)
    assert value(first, TABLE[attribute].exported) == 0.625


def test_a_gauge_with_labels_is_absent_until_it_is_measured_and_after_it_was_cleared(
    first: Metrics, run: RunMetrics
) -> None:
    def names() -> set[str]:
        return {sample.name for sample in samples(first)}

    absent = {row.exported for row in TABLE.values() if row.kind is Gauge and row.labels}
    assert len(absent) == 4
    assert not names() & absent
    measure_everything(first)
    assert absent < names()
    assert value(first, "hvdtrain_scaling_efficiency_ratio", **AGAINST) == 0.5
    for gauge in (run.efficiency, run.efficiency_low, run.efficiency_high, run.scaling_loss):
        gauge.clear()
    assert not names() & absent


def test_a_counter_with_labels_begins_at_0_under_all_of_them(first: Metrics) -> None:
    for part in PARTS:
        assert value(first, "hvdtrain_step_part_seconds_total", part=part) == 0
    for reason in ("evaluation", "checkpoint"):
        assert value(first, "hvdtrain_pause_seconds_total", reason=reason) == 0


def test_the_run_and_the_worker_are_described_by_labels(first: Metrics) -> None:
    assert value(first, "hvdtrain_run_info", **RUN) == 1
    assert value(first, "hvdtrain_worker_info", **WORKER) == 1


def test_what_describes_them_has_the_labels_of_the_table() -> None:
    from hvdtrain.config.schema import Config
    from hvdtrain.train.environment import run_info

    given = run_info(Config(), world_size=1, global_batch=32, commit="c")
    assert tuple(given) == RunMetrics.run_info.labels
    assert tuple(WORKER) == Metrics.worker_info.labels


def test_other_ranks_have_no_series_of_the_run() -> None:
    other = metrics(rank=1)
    assert other.run is None
    names = {sample.name for sample in samples(other)}
    assert names == {row.exported for row in rows(Metrics).values()}
    assert names < {sample.name for sample in samples(metrics(rank=0))}


@pytest.mark.parametrize(("rank", "fewer_than"), [(0, 150), (1, 40)])
def test_a_scrape_is_small(rank: int, fewer_than: int) -> None:
    of = metrics(rank)
    measure_everything(of)
    assert len(list(samples(of))) < fewer_than


def test_every_series_is_ours_explained_and_in_base_units(first: Metrics) -> None:
    measure_everything(first)
    families = list(text_string_to_metric_families(generate_latest(first.registry).decode()))
    assert len(families) == len(TABLE)
    for family in families:
        assert family.name.startswith("hvdtrain_")
        assert len(family.documentation) > 10
        for sample in family.samples:
            assert not sample.name.endswith(("_created", "_ms", "_percent", "_milliseconds", "_minutes"))
            assert not sample.labels.keys() & {"rank", "layer"}
            if family.type == "counter":
                assert sample.name.endswith("_total")


def test_no_series_tells_when_it_was_created_in_the_other_format_either(first: Metrics) -> None:
    text = open_metrics(first.registry).decode()
    assert "hvdtrain_step_seconds_bucket" in text
    assert "_created" not in text


def test_a_scrape_sees_all_that_changed_together_or_nothing(first: Metrics, run: RunMetrics) -> None:
    changed, scraped = threading.Event(), threading.Event()
    found = []

    def scrape() -> None:
        changed.wait()
        found.append({sample.name: sample.value for sample in samples(first)})
        scraped.set()

    threading.Thread(target=scrape, daemon=True).start()
    with first.together:
        run.loss.set(1)
        changed.set()
        assert not scraped.wait(0.2)
        run.lr.set(2)
    assert scraped.wait(60)
    assert (found[0]["hvdtrain_loss"], found[0]["hvdtrain_learning_rate"]) == (1, 2)


def test_a_run_has_its_own_registry_and_leaves_the_processs_alone(first: Metrics) -> None:
    metrics().steps.inc()
    assert value(first, "hvdtrain_steps_total") == 0
    assert REGISTRY.get_sample_value("hvdtrain_steps_total") is None
