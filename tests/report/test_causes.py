"""Why not better: what was done to a run is named first, with its size, and with what exists to be tried."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import hvdtrain.report
from hvdtrain.config.schema import Config
from hvdtrain.report.causes import Diagnosis, Loss
from hvdtrain.report.study import study
from tests.report.conftest import Examine
from tests.report.made import Fault, Made, write

FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(["input", "straggler", "communication"]),
    seconds=st.floats(0.02, 0.5),
    rank=st.integers(0, 7),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "faulty"


@settings(max_examples=40)
@given(fault=FAULTS, workers=st.sampled_from([2, 3, 8]), seed=st.integers(0, 99))
def test_a_fault_is_named_first_with_its_size(folder: Path, fault: Fault, workers: int, seed: int) -> None:
    fault = replace(fault, rank=fault.rank % workers)
    found = study(write(folder, Made(workers=workers, windows=5, steps=10, faults=(fault,), seed=seed)))
    first = found.diagnosis.losses[0]
    own = {"input": 0.0, "straggler": 0.002, "communication": 0.0065}[fault.kind]
    assert first.cause == fault.kind
    assert first.step_seconds == pytest.approx(fault.seconds + own, abs=0.004)
    if fault.kind != "communication":
        assert f"rank {fault.rank}" in first.evidence[0]


def losses(diagnosis: Diagnosis) -> dict[str, Loss]:
    return {loss.cause: loss for loss in diagnosis.losses}


def told(examine: Examine, made: Made, cause: str) -> tuple[str, str]:
    """Evidence and advice as one text each."""
    loss = losses(examine(made).diagnosis)[cause]
    return "; ".join(loss.evidence), "; ".join(loss.advice)


def test_a_slow_worker_has_a_name_and_a_place(examine: Examine) -> None:
    evidence, advice = told(examine, Made(workers=16, jitter=0.0).with_fault("straggler", 0.03, rank=9), "straggler")
    assert evidence == (
        "rank 9 on node001 is ready 30.0 ms later than the typical worker, the slowest in 100 % of the reports: "
        "it computes 30.0 ms longer; "
        "alone it is as fast as the others: it is slowed by what runs beside it, or since"
    )
    assert "hvdtrain doctor on node001" in advice
    assert "another node in the place of node001" in advice


def test_a_slow_host_is_more_than_a_slow_rank(examine: Examine) -> None:
    slow = tuple(Fault("straggler", 0.03, rank) for rank in range(8, 16))
    evidence, _ = told(examine, Made(workers=32, jitter=0.0005, faults=slow), "straggler")
    assert "so are the other 7 ranks of node001: the host is slow, not one device" in evidence


def test_jitter_is_nobodys_fault(examine: Examine) -> None:
    evidence, advice = told(examine, Made(workers=8, jitter=0.03, windows=40), "straggler")
    assert re.search(r"rank \d is the slowest in \d+ % of the reports; but none computes more than", evidence)
    assert "doctor" not in advice


def test_slow_input_of_one_rank_and_of_all(examine: Examine) -> None:
    one, _ = told(examine, Made(workers=8).with_fault("input", 0.05, rank=5), "input")
    assert one.startswith("rank 5 waits 50.6 ms a step for a batch, the typical rank 0.55 ms: not the decoding itself")
    slow = replace(Made(workers=8), faults=tuple(Fault("input", 0.05, rank) for rank in range(8)))
    everyone, advice = told(examine, slow, "input")
    assert re.match(r"every rank waits 50\.5 ms to 50\.6 ms a step for a batch, alone 0\.50 ms", everyone)
    assert "hvdtrain data pack" in advice
    assert "--data.stage copy" in advice


def test_advice_follows_the_settings(examine: Examine) -> None:
    slow = tuple(Fault("input", 0.05, rank) for rank in range(2))
    pillow = Config.model_validate({"data": {"decoder": "pillow", "stage": "copy", "threads": 3}})
    evidence, advice = told(examine, Made(faults=slow, config=pillow), "input")
    assert "3 threads" in evidence
    assert "--data.decoder dali" in advice
    assert "more --data.threads than 3" in advice
    assert "--data.stage" not in advice
    synthetic = Config.model_validate({"data": {"source": "synthetic"}})
    assert told(examine, Made(faults=slow, config=synthetic), "input")[1] == ""
    half = Config.model_validate({"distributed": {"compression": "fp16", "bucket_mib": 8}})
    assert "compression" not in told(examine, Made(config=half), "communication")[1]


def test_what_of_communication_hides(examine: Examine) -> None:
    evidence, advice = told(examine, Made(workers=256, exposed=0.0238, summed_alone=0.031), "communication")
    assert evidence == (
        "5 buckets of up to 25 MiB, 98 MiB in all; "
        "all gradients alone take 31.0 ms, 6.6 GB/s per worker on the bus (2(k-1)/k of 98 MiB); "
        "19 % of that hides behind backward; "
        "the last bucket, 1.0 MiB, is full when backward ends: about 0.32 ms cannot hide"
    )
    assert advice.startswith("--distributed.compression fp16, which halves the bytes; --distributed.bucket_mib 8")
    assert "--distributed.ring false" in advice
    evidence, _ = told(examine, Made(workers=8, exposed=0.04, summed_alone=0.031), "communication")
    assert "nothing of that hides: beside computing it takes 11.0 ms longer than alone" in evidence
    stored, _ = told(examine, Made(baseline="stored", exposed=0.04), "communication")
    assert "how long the sum takes alone is not known" in stored


def test_a_link_that_is_none(examine: Examine) -> None:
    _, advice = told(examine, Made(workers=16, exposed=1.9, summed_alone=2.0), "communication")
    assert advice.startswith("the network: so slow is no link between nodes")
    _, advice = told(examine, Made(workers=2, exposed=1.9, summed_alone=2.0), "communication")
    assert advice.startswith("cores that nothing else uses: so slow is no memory")
    assert "network" not in advice


def test_contention_is_of_computing_or_of_communication(examine: Examine) -> None:
    evidence, _ = told(examine, Made(workers=8, contention=0.02, together=0.015, jitter=0.0), "contention")
    assert evidence.startswith(
        "computing takes 120 ms a step, alone 100 ms; all at once without communication took 115 ms then"
    )
    stored, _ = told(examine, Made(workers=8, contention=0.02, baseline="stored"), "contention")
    assert "a stored baseline does not say" in stored
    spinning = Config.model_validate({"distributed": {"yield_when_idle": False}})
    assert (
        "--distributed.yield_when_idle true" in told(examine, Made(contention=0.02, config=spinning), "contention")[1]
    )


def test_what_cannot_be_known_is_said(examine: Examine) -> None:
    def notes(made: Made) -> str:
        return "\n".join(examine(made).diagnosis.notes)

    assert "--metrics.baseline measured" in notes(Made(baseline=None))
    assert "one worker: nothing to scale" in notes(Made(workers=1, baseline=None))
    assert "2 reports alone make no trustworthy interval" in notes(Made(windows=2, epochs=1))
    assert "trustworthy" not in notes(Made(windows=5))
    assert "what the link could carry is not known here" in notes(Made(workers=16, exposed=0.05))
    assert notes(Made(workers=2, exposed=0.05)) == ""
    assert "computing is 20.0 ms a step faster than in the baseline" in notes(Made(contention=-0.02, jitter=0.0))
    assert notes(Made(exposed=0.001)) == ""


def test_what_costs_next_to_nothing_is_not_explained(examine: Examine) -> None:
    found = losses(examine(Made(workers=2, exposed=0.0005, jitter=0.0)).diagnosis)
    assert found["communication"].share < 0.01
    assert (found["communication"].evidence, found["communication"].advice) == ((), ())
    assert found["contention"].evidence != ()


def test_long_pauses_have_advice(examine: Examine) -> None:
    found = {each.pause.reason: each for each in examine(Made(windows=30, evaluation_seconds=20)).diagnosis.idle}
    assert found["evaluation"].share > 0.3
    assert "--evaluation.every_epochs" in found["evaluation"].advice
    assert found["checkpoint"].advice == ""


def test_every_option_that_is_named_exists() -> None:
    source = "".join(file.read_text() for file in Path(hvdtrain.report.__file__).parent.glob("*.py"))
    named = set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)+)", source))
    assert len(named) > 12
    for option in named:
        model: type[BaseModel] = Config
        *sections, field = option.split(".")
        for section in sections:
            model = type(getattr(model(), section))
        assert field in model.model_fields, option
    for option, value in re.findall(r"--([a-z_]+\.[a-z_]+) (dali|gpu|copy|fp16|true|false|measured|stored)\b", source):
        section, field = option.split(".")
        Config.model_validate({section: {field: value}})
