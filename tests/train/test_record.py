"""What is told of a step and of a report: by metrics, in events and in the trace."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hvdtrain.checkpoint.format import Manifest
from hvdtrain.checkpoint.writer import Saved
from hvdtrain.data import synthetic
from hvdtrain.data.loader import Batch, Plan
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.events import EventLog
from hvdtrain.metrics.registry import Metrics
from hvdtrain.train.clock import HostTime, StepClock
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.meters import Meters, Report
from hvdtrain.train.micro_batches import MicroBatches
from hvdtrain.train.record import Record, Traffic
from hvdtrain.train.state import TrainState
from hvdtrain.train.trace import Trace
from hvdtrain.train.watch import _launches

from ..metrics.test_efficiency import ALONE
from .test_meters import Known, TwoWorkers
from .test_meters import step as of_images

RUN_INFO = dict.fromkeys(
    (
        *("run", "model", "precision", "world_size", "global_batch_size", "batch_size"),
        *("version", "commit", "torch", "slurm_job_id"),
    ),
    "x",
)


def made(rank: int = 0) -> Record:
    metrics = Metrics(
        rank=rank, run_info=RUN_INFO, worker_info={"host": "h", "device": "cpu", "device_name": "a processor"}
    )
    return Record(metrics, Activity(), rank, images_per_epoch=100, traffic=Traffic.of([1000, 500], 4))


@pytest.fixture
def record() -> Record:
    return made()


def value(record: Record, name: str, **labels: str) -> float:
    found = record.metrics.registry.get_sample_value(name, labels)
    assert found is not None, name
    return found


def state(scaler: torch.amp.GradScaler | None = None) -> TrainState:
    model = torch.nn.Linear(1, 1)
    return TrainState(model, torch.optim.SGD(model.parameters()), scaler=scaler, images_seen=50, step=3)


def step(count: int = 2) -> MicroBatches:
    """Three images of four in each micro-batch; image i of the index in the i-th."""

    def batch(number: int) -> Batch:
        rows, windows = np.array([number]), np.zeros((1, 4), np.float32)
        plan = Plan(rows, rows, rows, windows, windows.astype(np.int32), rows > 0, images_seen=50)
        return Batch(torch.zeros(3, 3, 1, 1), torch.zeros(3, dtype=torch.int64), images_seen=50, skipped=1, plan=plan)

    taken = MicroBatches(map(batch, range(count)), count, StepClock(HostTime()))
    assert len(list(taken)) == count
    return taken


def report(*steps: float, slow: float = 0.0) -> Report:
    """Of two workers; `slow`: seconds that the second computes longer."""
    meters = Meters(Known(*steps), baseline=ALONE, warming_up=0)
    for _ in steps:
        meters.add(torch.tensor(4.0), of_images(4))

    class Slow(TwoWorkers):
        def table(self, row: np.ndarray, name: str) -> np.ndarray:  # type: ignore[type-arg]
            rows = super().table(row, name)
            rows[1, 3::4] += slow  # after loss and images: input, compute, ready, total
            rows[1, 4::4] += slow
            rows[:, 5::4] += slow
            return rows

    return meters.report(Slow(4.0 * len(steps), 4 * len(steps)))


def test_a_step_of_micro_batches_is_one_step(record: Record) -> None:
    record.step(state(), step(count=2), lr=0.25)
    assert value(record, "hvdtrain_steps_total") == 1
    assert value(record, "hvdtrain_images_total") == 6
    assert value(record, "hvdtrain_images_skipped_total") == 2
    assert (value(record, "hvdtrain_learning_rate"), value(record, "hvdtrain_epoch")) == (0.25, 0.5)


def test_what_travels_is_counted_as_payload_and_as_the_ring_sends_it(record: Record) -> None:
    for _ in range(2):
        record.step(state(), step(), lr=0.25)
    assert value(record, "hvdtrain_allreduces_total") == 4
    assert value(record, "hvdtrain_allreduce_payload_bytes_total") == 3000
    assert value(record, "hvdtrain_allreduce_wire_bytes_total") == 3000 * 2 * 3 / 4


@pytest.mark.parametrize(("workers", "factor"), [(1, 0), (2, 1), (4, 1.5)])
def test_one_worker_sends_nothing_and_many_nearly_twice_the_payload(workers: int, factor: float) -> None:
    assert Traffic.of([100, 60], workers) == Traffic(2, 160, factor * 160)


def test_without_a_scale_none_is_told(record: Record) -> None:
    record.step(state(), step(), lr=0.1)
    assert math.isnan(value(record, "hvdtrain_loss_scale"))
    assert value(record, "hvdtrain_steps_overflown_total") == 0


def test_the_scale_and_the_steps_left_out_are_told(record: Record) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=512)
    of = state(scaler)
    for of.overflown in (True, False, True):
        record.step(of, step(), lr=0.1)
    assert value(record, "hvdtrain_loss_scale") == 512
    assert value(record, "hvdtrain_steps_overflown_total") == 2
    assert value(record, "hvdtrain_steps_total") == 3


def test_a_report_tells_the_runs_steps_and_this_workers_parts(record: Record) -> None:
    record.report(state(), report(0.5, 0.25), lr=0.1)
    assert value(record, "hvdtrain_step_seconds_count") == 2
    assert value(record, "hvdtrain_step_seconds_sum") == pytest.approx(0.75)
    assert value(record, "hvdtrain_input_wait_seconds_sum") == pytest.approx(0.075)
    assert value(record, "hvdtrain_exposed_communication_seconds_sum") == pytest.approx(0.075)
    assert value(record, "hvdtrain_step_part_seconds_total", part="compute") == pytest.approx(0.7 * 0.75)
    assert value(record, "hvdtrain_loss") == 1


def test_who_waits_and_who_is_late_are_told_each_by_itself() -> None:
    first, second = made(rank=0), made(rank=1)
    for record in (first, second):
        record.report(state(), report(0.5, slow=0.2), lr=0.1)
    lag = "hvdtrain_rank_lag_seconds"
    assert (value(first, lag), value(second, lag)) == pytest.approx((0, 0.2))
    waited = [value(record, "hvdtrain_step_part_seconds_total", part="straggler") for record in (first, second)]
    assert waited == pytest.approx([0.2, 0])
    assert (value(first, "hvdtrain_slowest_rank"), value(first, "hvdtrain_slowest_rank_lag_seconds")) == (
        1,
        pytest.approx(0.2),
    )


def test_efficiency_is_told_with_its_baseline_and_its_losses(record: Record) -> None:
    record.compared(state(), ALONE, images=16)
    record.report(state(), report(0.5), lr=0.1)
    against = {"kind": "weak", "baseline": "measured", "baseline_workers": "1"}
    assert value(record, "hvdtrain_scaling_efficiency_ratio", **against) == pytest.approx(0.2)
    causes = ("input", "contention", "straggler", "communication", "rest")
    losses = sum(value(record, "hvdtrain_scaling_loss_ratio", cause=cause) for cause in causes)
    assert losses == pytest.approx(0.8)
    assert value(record, "hvdtrain_baseline_images_per_second") == pytest.approx(160)


def test_without_a_baseline_no_efficiency_is_told_any_more(record: Record) -> None:
    record.report(state(), report(0.5), lr=0.1)
    meters = Meters(Known(0.5), warming_up=0)
    meters.add(torch.tensor(4.0), of_images(4))
    record.report(state(), meters.report(SoloComm()), lr=0.1)
    names = {s.name for family in record.metrics.registry.collect() for s in family.samples}
    assert not [name for name in names if "scaling" in name]
    assert "hvdtrain_step_seconds_count" in names


def test_a_report_is_an_event_for_machines(tmp_path: Path) -> None:
    record = made()
    record.events = EventLog(tmp_path / "events.jsonl")
    record.compared(state(), ALONE, images=16)
    record.report(state(), report(0.5, slow=0.25), lr=0.1)
    record.events.close()
    baseline, event = (json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines())
    assert baseline["event"] == "baseline"
    assert (baseline["source"], baseline["workers"], baseline["step_seconds"]) == ("measured", 1, 0.1)
    assert (event["step"], event["images_seen"], event["epoch"], event["steps"]) == (3, 50, 0.5, 1)
    assert event["step_seconds"] == pytest.approx(0.75) == pytest.approx(sum(event["parts"].values()))
    assert event["parts"]["straggler"] == pytest.approx(0.25)
    assert event["ranks"]["lag"] == pytest.approx([0, 0.25])
    assert event["slowest_rank"] == 1
    assert event["efficiency"]["ratio"] + sum(event["efficiency"]["losses"].values()) == pytest.approx(1)
    assert event["efficiency"]["low"] is None  # of a single window


def test_the_trace_has_all_micro_batches_in_order(record: Record, tmp_path: Path) -> None:
    record.trace = Trace(tmp_path, 0, synthetic.index("val"))
    record.step(state(), step(count=3), lr=0.1)
    record.trace.close()
    with (tmp_path / "rank-0.csv").open(newline="") as file:
        assert [(line["images_seen"], line["sample"]) for line in csv.DictReader(file)] == [
            ("50", "0"),
            ("50", "1"),
            ("50", "2"),
        ]


def test_the_averages_accuracy_is_told_beside_the_weights_own(record: Record) -> None:
    weights, average = Evaluation(10, 0.5, 0.75, 2.0), Evaluation(10, 0.625, 0.875, 1.0)
    record.evaluated(state(), weights, None, seconds=1)
    assert value(record, "hvdtrain_top1_ratio") == 0.5
    assert math.isnan(value(record, "hvdtrain_average_top1_ratio"))
    record.evaluated(state(), weights, average, seconds=1)
    assert value(record, "hvdtrain_top1_ratio") == 0.5
    assert value(record, "hvdtrain_average_top1_ratio") == 0.625
    assert value(record, "hvdtrain_pause_seconds_total", reason="evaluation") == 2


def test_a_checkpoint_is_counted_and_timed(record: Record, tmp_path: Path) -> None:
    manifest = Manifest(images_seen=40, step=2, config_digest="c", data_digest="d")
    record.saved([Saved(tmp_path, manifest, stalled_seconds=0.25, seconds=0.5)])
    assert value(record, "hvdtrain_checkpoints_total") == 1
    assert value(record, "hvdtrain_checkpoint_seconds_sum") == 0.5
    assert value(record, "hvdtrain_pause_seconds_total", reason="checkpoint") == 0.25
    assert value(record, "hvdtrain_last_checkpoint_timestamp_seconds") > 1e9


@pytest.mark.parametrize(("events", "resets", "restarts"), [(0, 0, 0), (2, 0, 2), (3, 2, 2), (0, 1, 0)])
def test_a_change_of_workers_is_no_restart(events: int, resets: int, restarts: int, record: Record) -> None:
    """Of a launch that has changed its workers, the events tell already."""
    record.launches = events
    record.started(state(), world_size=2, global_batch=64, batch=32, total_images=1, resets=resets, lost_images=0)
    assert value(record, "hvdtrain_restarts") == restarts
    assert value(record, "hvdtrain_resets") == resets


def test_only_launches_are_counted_of_what_the_events_tell(tmp_path: Path) -> None:
    told = [{"event": "start"}, {"event": "resume", "resets": 1}, {"event": "resume"}, {"event": "end"}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps({"time": 1.0, **one}) + "\n" for one in told) + '{"ti')
    assert _launches(tmp_path / "events.jsonl") == 2
