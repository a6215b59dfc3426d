"""The exporter: its pages over HTTP, and which port they are on."""

import math
import threading
from contextlib import ExitStack

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hvdtrain.distributed.activity import Activity
from hvdtrain.errors import EnvironmentFault
from hvdtrain.metrics.exporter import TRIES
from tests.metrics.serving import exporter, get, metrics, run_of_free_ports, taken


def scrape(port: int) -> dict[str, float]:
    status, kind, text = get(port)
    assert status == 200
    assert kind.startswith("text/plain; version=")
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_a_scrape_gives_every_series_as_it_is_now() -> None:
    of = metrics()
    with exporter(of) as serving:
        assert scrape(serving.port)["hvdtrain_steps_total"] == 0
        of.steps.inc(7)
        found = scrape(serving.port)
        assert found["hvdtrain_steps_total"] == 7
        assert found["hvdtrain_run_info"] == 1
        assert math.isnan(found["hvdtrain_loss"])


def test_a_scrape_may_ask_for_some_series_only() -> None:
    with exporter() as serving:
        _, _, text = get(serving.port, "/metrics?name[]=hvdtrain_steps_total")
        assert text.splitlines()[-1] == "hvdtrain_steps_total 0.0"
        assert text.count("# TYPE") == 1


def test_health_is_told_by_status_and_in_words() -> None:
    now = 1000.0
    with exporter(activity=Activity(lambda: now)) as serving:
        assert get(serving.port, "/healthz")[::2] == (200, "healthy: last progress 0.0 s ago\n")
        now += 100
        status, kind, text = get(serving.port, "/healthz")
        assert (status, kind) == (503, "text/plain; charset=utf-8")
        assert text.startswith("stuck: nothing done for 100 s")
        assert get(serving.port, "/metrics")[0] == 200


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/favicon.ico", "/healthz/x"])
def test_other_pages_are_not_there(path: str) -> None:
    with exporter() as serving:
        assert get(serving.port, path)[0] == 404


def test_the_first_page_leads_to_the_others() -> None:
    with exporter() as serving:
        status, kind, text = get(serving.port, "/")
        assert (status, kind) == (200, "text/html")
        assert 'href="metrics"' in text
        assert 'href="healthz"' in text


def test_the_wanted_port_is_taken_if_it_is_free() -> None:
    port = run_of_free_ports(1)
    with exporter(port=port) as serving:
        assert (serving.port, serving.scheme) == (port, "http")


def test_from_a_port_in_use_it_moves_to_the_next_free_one() -> None:
    port = run_of_free_ports(3)
    with taken(port), taken(port + 1), exporter(port=port) as serving:
        assert serving.port == port + 2
        assert "hvdtrain_images_total" in scrape(serving.port)


def test_two_exporters_on_a_host_serve_their_own() -> None:
    port = run_of_free_ports(2)
    one, other = metrics("r1"), metrics("r2")
    other.steps.inc(5)
    with exporter(one, port) as first, exporter(other, port) as second:
        assert (first.port, second.port) == (port, port + 1)
        assert scrape(port)["hvdtrain_steps_total"] == 0
        assert scrape(port + 1)["hvdtrain_steps_total"] == 5


def test_after_closing_the_port_is_free_and_no_thread_is_left() -> None:
    threads = threading.active_count()
    port = run_of_free_ports(1)
    with exporter(port=port):
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    taken(port).close()
    with exporter(port=port) as again:
        assert again.port == port


def test_without_a_free_port_it_says_which_were_tried() -> None:
    port = run_of_free_ports(TRIES)
    with ExitStack() as stack:
        for occupied in range(port, port + TRIES):
            stack.enter_context(taken(occupied))
        with (
            pytest.raises(EnvironmentFault, match=f"ports {port} to {port + TRIES - 1} are all taken"),
            exporter(port=port),
        ):
            pass


@pytest.mark.parametrize("address", ["203.0.113.7", "no such host.invalid", "300.1.1.1"])
def test_an_address_of_another_host_is_refused_by_name(address: str) -> None:
    with (
        pytest.raises(EnvironmentFault, match=f"metrics.address = {address}: .*set metrics.address"),
        exporter(address=address),
    ):
        pass


@pytest.mark.parametrize("address", ["localhost", "0.0.0.0"])
def test_a_name_and_a_wildcard_are_addresses_too(address: str) -> None:
    with exporter(address=address) as serving:
        assert scrape(serving.port)["hvdtrain_steps_total"] == 0
