"""The file by which Prometheus finds the workers."""

import json
import socket
from pathlib import Path

import pytest

from hvdtrain.metrics import targets


def test_every_rank_is_a_target_with_its_labels_in_order(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    targets.write(path, "demo", ["a:9470", "a:9471", "b:9470"])
    assert json.loads(path.read_text()) == [
        {"targets": ["a:9470"], "labels": {"run": "demo", "rank": "0"}},
        {"targets": ["a:9471"], "labels": {"run": "demo", "rank": "1"}},
        {"targets": ["b:9470"], "labels": {"run": "demo", "rank": "2"}},
    ]


def test_a_new_world_replaces_the_old_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    targets.write(path, "demo", ["a:1", "b:2"])
    targets.write(path, "demo", ["c:3"])
    assert [group["targets"] for group in json.loads(path.read_text())] == [["c:3"]]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "node7.cluster"])
def test_an_address_is_its_own_name(address: str) -> None:
    assert targets.advertised_host(address) == address


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_behind_a_wildcard_the_host_is_told_by_its_name(address: str) -> None:
    assert targets.advertised_host(address) == socket.getfqdn()


def test_an_ipv6_address_is_told_in_brackets() -> None:
    assert targets.advertised_host("::1") == "[::1]"
