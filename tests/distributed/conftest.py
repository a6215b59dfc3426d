from collections.abc import Iterator

import pytest
from horovod.runner.elastic import driver as horovods
from horovod.runner.elastic.rendezvous import create_rendezvous_handler
from horovod.runner.http.http_server import RendezvousServer

from .driver import SECONDS, Cluster, Hosts, Start, until


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a driver, with the slots of each host and at most so many workers."""
    monkeypatch.setattr(horovods, "DISCOVER_HOSTS_FREQUENCY_SECS", 0.02)
    clusters = []

    def begin(*, most: int = 9, **slots: int) -> Cluster:
        server, hosts = RendezvousServer(), Hosts(slots)
        elastic = horovods.ElasticDriver(server, hosts, 1, most, timeout=SECONDS)
        cluster = Cluster(hosts, server.start(create_rendezvous_handler(elastic)), server, elastic)
        server._httpd.daemon_threads = True  # who asks while another does not come is answered never
        clusters.append(cluster)
        elastic.start(sum(slots.values()), cluster.launch)
        until(lambda: len(cluster.started) == min(sum(slots.values()), most), "the workers' start")
        return cluster

    yield begin
    for cluster in clusters:
        if not cluster.elastic.finished():
            cluster.elastic.stop()
        cluster.server._httpd.socket.close()  # server_close would join who waits there
