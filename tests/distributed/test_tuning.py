"""What is set before Horovod, MPI and NCCL start, and that the user's own settings stay."""

from typing import Any

import pytest
from pydantic import ValidationError

from hvdtrain.config.machines import DistributedConfig
from hvdtrain.distributed.fabric import FABRICS
from hvdtrain.distributed.tuning import DEFAULTS, MIB, RING, Tuning, Value, tune
from hvdtrain.errors import ConfigError

YIELD = {"OMPI_MCA_mpi_yield_when_idle": "1"}
OFF = {"HOROVOD_FUSION_THRESHOLD": "0"}


def tuned(environment: dict[str, str], **changes: Any) -> Tuning:
    return tune(environment, DistributedConfig(**changes), on_cpus_of_one_node=False)


def value(tuning: Tuning, name: str) -> Value:
    (found,) = [each for each in tuning.values if each.name == name]
    return found


def test_by_default_the_ring_is_asked_for_and_horovods_own_fusion_is_off() -> None:
    found = tuned({})
    assert (found.bucket_bytes, found.environment, found.kept) == (25 * MIB, {**RING, **YIELD, **OFF}, {})


def test_workers_on_the_cpus_of_one_node_look_more_often_unless_somebody_says_how_often() -> None:
    def looks(environment: dict[str, str], **changes: Any) -> tuple[str | None, str]:
        found = value(tune(environment, DistributedConfig(**changes), on_cpus_of_one_node=True), "HOROVOD_CYCLE_TIME")
        return found.value, found.by

    assert looks({}) == looks({}, fabric="cpu") == ("0.1", "CPUs of one node")
    assert looks({}, cycle_milliseconds=2) == ("2", "distributed.cycle_milliseconds")
    assert looks({"HOROVOD_CYCLE_TIME": "3"}, cycle_milliseconds=2) == ("3", "environment")


def test_where_workers_come_and_go_gloo_waits_for_a_lost_one_no_longer_than_need_be() -> None:
    def waits(environment: dict[str, str]) -> dict[str, str]:
        found = tune(environment, DistributedConfig(), on_cpus_of_one_node=False, elastic=True).environment
        return {name: text for name, text in found.items() if "GLOO_TIMEOUT" in name}

    assert waits({}) == {"HOROVOD_GLOO_TIMEOUT_SECONDS": "10"}
    assert waits({"HOROVOD_GLOO_TIMEOUT_SECONDS": "60"}) == {}
    assert "HOROVOD_GLOO_TIMEOUT_SECONDS" not in tuned({}).environment


def test_the_ring_is_coll_tuneds_whatever_open_mpi_would_prefer() -> None:
    """Open MPI 5 prefers han on several nodes, and hcoll or ucc where they are installed."""
    assert RING["OMPI_MCA_coll_tuned_allreduce_algorithm"] == "4"
    assert RING["OMPI_MCA_coll_tuned_use_dynamic_rules"] == "1"
    others = {name: RING[name] for name in RING if "tuned" not in name and name.startswith("OMPI")}
    assert set(others.values()) == {"0"}
    assert {name.split("_")[3] for name in others} == {"han", "adapt", "hcoll", "ucc"}


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"ring": False}, {**YIELD, **OFF}),
        ({"yield_when_idle": False}, {**RING, **OFF}),
        ({"reducer": "horovod"}, {**RING, **YIELD}),
        ({"ring": False, "yield_when_idle": False, "reducer": "horovod"}, {}),
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
    assert value(found, name) == Value(name, "7", "environment")


def test_what_the_user_set_alike_is_not_worth_a_word() -> None:
    found = tuned({**RING, **YIELD})
    assert (found.environment, found.kept) == (OFF, {})


SETTINGS = {
    "cycle_milliseconds": (0.5, {"HOROVOD_CYCLE_TIME": "0.5"}),
    "cache_capacity": (0, {"HOROVOD_CACHE_CAPACITY": "0"}),
    "hierarchical_allreduce": (False, {"HOROVOD_HIERARCHICAL_ALLREDUCE": "0"}),
    "interfaces": (
        ("eth1", "eth2"),
        {
            "OMPI_MCA_btl_tcp_if_include": "eth1,eth2",
            "NCCL_SOCKET_IFNAME": "=eth1,eth2",
            "HOROVOD_GLOO_IFACE": "eth1",
        },
    ),
}


@pytest.mark.parametrize("key", SETTINGS)
@pytest.mark.parametrize("fabric", FABRICS)
def test_a_setting_wins_over_any_fabric_and_the_environment_over_both(key: str, fabric: str) -> None:
    given, wanted = SETTINGS[key]
    found = tuned({}, **{key: given}, fabric=fabric)
    assert found.environment.items() >= wanted.items()
    for name, text in wanted.items():
        assert value(found, name) == Value(name, text, f"distributed.{key}")
        other = tuned({name: "mine"}, **{key: given}, fabric=fabric)
        assert value(other, name) == Value(name, "mine", "environment")
        assert other.kept == {name: "mine"}


@pytest.mark.parametrize("fabric", FABRICS)
def test_a_fabric_sets_its_table_and_every_line_has_a_reason(fabric: str) -> None:
    found = tuned({}, fabric=fabric)
    table = {advice.name: advice.value for advice in FABRICS[fabric]}
    assert found.environment == {**RING, **YIELD, **OFF, **table}
    for advice in FABRICS[fabric]:
        assert len(advice.why) > 20
        assert value(found, advice.name) == Value(advice.name, advice.value, f"fabric {fabric}", advice.why)


@pytest.mark.parametrize("fabric", FABRICS)
def test_no_fabric_touches_what_decides_the_order_of_summation(fabric: str) -> None:
    names = {advice.name for advice in FABRICS[fabric]}
    assert not names & {*RING, "HOROVOD_HIERARCHICAL_ALLREDUCE", "HOROVOD_FUSION_THRESHOLD"}
    assert len(names) == len(FABRICS[fabric])


def test_auto_is_no_preset() -> None:
    assert FABRICS["auto"] == ()
    with pytest.raises(ValidationError, match="fabric"):
        tuned({}, fabric="token ring")


def test_open_mpi_is_never_told_interfaces_to_use_and_others_not_to() -> None:
    """It takes one of the two."""
    include, exclude = "OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_btl_tcp_if_exclude"
    ours = tuned({}, fabric="ethernet", interfaces=["eth0"])
    assert exclude not in ours.environment
    theirs = tuned({exclude: "lo"}, interfaces=["eth0"])
    assert include not in theirs.environment
    assert theirs.kept == {exclude: "lo"}
    assert exclude not in tuned({include: "eth0"}, fabric="ethernet").environment


def test_what_nobody_set_is_the_librarys() -> None:
    found = tuned({}, ring=False, yield_when_idle=False)
    for name, default in DEFAULTS.items():
        assert value(found, name) == Value(name, default, "default")
        assert name not in found.environment


def test_threads_are_told_but_not_set_for_torch_has_read_them_already() -> None:
    found = tuned({}, threads=3)
    assert value(found, "OMP_NUM_THREADS") == Value("OMP_NUM_THREADS", "3", "distributed.threads")
    assert "OMP_NUM_THREADS" not in found.environment
    assert value(tuned({"OMP_NUM_THREADS": "1"}, threads=3), "OMP_NUM_THREADS").by == "environment"


def test_the_fusion_threshold_of_the_environment_is_the_bucket_size() -> None:
    found = tuned({"HOROVOD_FUSION_THRESHOLD": "1000"})
    assert found.bucket_bytes == 1000
    assert found.environment["HOROVOD_FUSION_THRESHOLD"] == "0"
    assert found.kept == {"HOROVOD_FUSION_THRESHOLD": "1000"}


def test_without_buckets_the_fusion_threshold_is_horovods_own() -> None:
    found = tuned({"HOROVOD_FUSION_THRESHOLD": "1000"}, reducer="horovod")
    assert "HOROVOD_FUSION_THRESHOLD" not in found.environment
    assert value(found, "HOROVOD_FUSION_THRESHOLD").by == "environment"


@pytest.mark.parametrize("threshold", ["-5", "64MB", "", "1e6", "1.5"])
def test_a_fusion_threshold_that_is_no_number_of_bytes_is_refused(threshold: str) -> None:
    with pytest.raises(ConfigError, match=f"HOROVOD_FUSION_THRESHOLD = {threshold}: expected a number of bytes"):
        tuned({"HOROVOD_FUSION_THRESHOLD": threshold})


@pytest.mark.parametrize(("mib", "size"), [(25, 26214400), (0.5, 524288), (0.0000001, 0)])
def test_the_bucket_size_is_in_mib(mib: float, size: int) -> None:
    assert tuned({}, bucket_mib=mib).bucket_bytes == size


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a=b", "eth0\n", "a\0", "x" * 16, "^lo"])
def test_what_is_no_name_of_an_interface_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="interfaces"):
        tuned({}, interfaces=[name])


def test_the_environment_that_is_handed_in_is_not_changed() -> None:
    environment = {"NCCL_ALGO": "Tree"}
    tuned(environment)
    assert environment == {"NCCL_ALGO": "Tree"}
