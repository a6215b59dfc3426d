"""The exporter: a scrape over HTTP, and which port it is on."""

import math
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from hvdtrain.errors import EnvironmentFault
from hvdtrain.metrics.exporter import TRIES, Exporter
from hvdtrain.metrics.registry import Metrics

HOST = "127.0.0.1"


def taken(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def run_of_free_ports(length: int) -> int:
    """The first of `length` ports that are free one after the other."""
    for first in range(20000, 60000, length):
        try:
            with ExitStack() as stack:
                for port in range(first, first + length):
                    stack.enter_context(taken(port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@contextmanager
def exporter(metrics: Metrics, port: int, address: str = HOST) -> Iterator[Exporter]:
    serving = Exporter(metrics.registry, address=address, port=port)
    try:
        yield serving
    finally:
        serving.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), {"run": "r1"})


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_a_scrape_gives_every_series_as_it_is_now(metrics: Metrics) -> None:
    with exporter(metrics, run_of_free_ports(1)) as serving:
        assert scrape(serving.port)["hvdtrain_steps_total"] == 0
        metrics.steps.inc(7)
        found = scrape(serving.port)
        assert found["hvdtrain_steps_total"] == 7
        assert found["hvdtrain_run_info"] == 1
        assert math.isnan(found["hvdtrain_loss"])


def test_the_wanted_port_is_taken_if_it_is_free(metrics: Metrics) -> None:
    port = run_of_free_ports(1)
    with exporter(metrics, port) as serving:
        assert serving.port == port


def test_from_a_port_in_use_it_moves_to_the_next_free_one(metrics: Metrics) -> None:
    port = run_of_free_ports(3)
    with taken(port), taken(port + 1), exporter(metrics, port) as serving:
        assert serving.port == port + 2
        assert "hvdtrain_images_total" in scrape(serving.port)


def test_two_exporters_on_a_host_serve_their_own(metrics: Metrics) -> None:
    port = run_of_free_ports(2)
    other = Metrics(CollectorRegistry(), {"run": "r2"})
    other.steps.inc(5)
    with exporter(metrics, port) as first, exporter(other, port) as second:
        assert (first.port, second.port) == (port, port + 1)
        assert scrape(port)["hvdtrain_steps_total"] == 0
        assert scrape(port + 1)["hvdtrain_steps_total"] == 5


def test_after_closing_the_port_is_free_and_no_thread_is_left(metrics: Metrics) -> None:
    threads = threading.active_count()
    port = run_of_free_ports(1)
    with exporter(metrics, port):
        assert threading.active_count() == threads + 1
    taken(port).close()
    with exporter(metrics, port) as again:
        assert again.port == port


def test_without_a_free_port_it_says_which_were_tried(metrics: Metrics) -> None:
    port = run_of_free_ports(TRIES)
    with ExitStack() as stack:
        for occupied in range(port, port + TRIES):
            stack.enter_context(taken(occupied))
        with pytest.raises(EnvironmentFault, match=f"ports {port} to {port + TRIES - 1} are all taken"):
            Exporter(metrics.registry, address=HOST, port=port)


@pytest.mark.parametrize("address", ["203.0.113.7", "no such host.invalid", "300.1.1.1"])
def test_an_address_of_another_host_is_refused_by_name(address: str, metrics: Metrics) -> None:
    with pytest.raises(EnvironmentFault, match=f"metrics.address = {address}: .*set metrics.address"):
        Exporter(metrics.registry, address=address, port=run_of_free_ports(1))
