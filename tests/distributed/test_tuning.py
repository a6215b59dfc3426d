"""What is set before Horovod, MPI and NCCL start, and that the user's own settings stay."""

from typing import Any

import pytest

from hvdtrain.distributed.tuning import MIB, Tuning, tune
from hvdtrain.errors import ConfigError

RING = {
    "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
    "OMPI_MCA_coll_tuned_allreduce_algorithm": "4",
    "NCCL_ALGO": "Ring",
}
YIELD = {"OMPI_MCA_mpi_yield_when_idle": "1"}
OFF = {"HOROVOD_FUSION_THRESHOLD": "0"}


def tuned(environment: dict[str, str], **changes: Any) -> Tuning:
    settings = {"buckets": True, "bucket_mib": 25.0, "ring": True, "yield_when_idle": True, **changes}
    return tune(environment, **settings)


def test_by_default_the_ring_is_asked_for_and_horovods_own_fusion_is_off() -> None:
    assert tuned({}) == Tuning(25 * MIB, {**RING, **YIELD, **OFF}, {})


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"ring": False}, {**YIELD, **OFF}),
        ({"yield_when_idle": False}, {**RING, **OFF}),
        ({"buckets": False}, {**RING, **YIELD}),
        ({"ring": False, "yield_when_idle": False, "buckets": False}, {}),
    ],
)
def test_what_is_not_wanted_is_not_set(changes: dict[str, Any], left: dict[str, str]) -> None:
    assert tuned({}, **changes).environment == left


@pytest.mark.parametrize("name", [*RING, *YIELD])
def test_what_the_user_set_otherwise_stays_and_is_told(name: str) -> None:
    found = tuned({name: "7"})
    assert name not in found.environment
    assert found.kept == {name: "7"}
    assert {**found.environment, name: ""} == {**RING, **YIELD, **OFF, name: ""}


def test_what_the_user_set_alike_is_not_worth_a_word() -> None:
    assert tuned({**RING, **YIELD}) == Tuning(25 * MIB, OFF, {})


def test_the_fusion_threshold_of_the_environment_is_the_bucket_size() -> None:
    found = tuned({"HOROVOD_FUSION_THRESHOLD": "1000"})
    assert found.bucket_bytes == 1000
    assert found.environment["HOROVOD_FUSION_THRESHOLD"] == "0"
    assert found.kept == {"HOROVOD_FUSION_THRESHOLD": "1000"}


def test_without_buckets_the_fusion_threshold_is_horovods_own() -> None:
    found = tuned({"HOROVOD_FUSION_THRESHOLD": "1000"}, buckets=False)
    assert "HOROVOD_FUSION_THRESHOLD" not in found.environment


@pytest.mark.parametrize("threshold", ["-5", "64MB", "", "1e6", "1.5"])
def test_a_fusion_threshold_that_is_no_number_of_bytes_is_refused(threshold: str) -> None:
    with pytest.raises(ConfigError, match=f"HOROVOD_FUSION_THRESHOLD = {threshold}: expected a number of bytes"):
        tuned({"HOROVOD_FUSION_THRESHOLD": threshold})


@pytest.mark.parametrize(("mib", "size"), [(25, 26214400), (0.5, 524288), (0.0000001, 0)])
def test_the_bucket_size_is_in_mib(mib: float, size: int) -> None:
    assert tuned({}, bucket_mib=mib).bucket_bytes == size


def test_the_environment_that_is_handed_in_is_not_changed() -> None:
    environment = {"NCCL_ALGO": "Tree"}
    tuned(environment)
    assert environment == {"NCCL_ALGO": "Tree"}
