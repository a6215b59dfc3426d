"""The limit of open files is raised as far as it may be, and what is too low is said."""

import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hvdtrain.distributed import limits, watchdog
from hvdtrain.distributed.chief import Worker
from hvdtrain.distributed.hub import Hub


@pytest.fixture
def soft_limit_of_256() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_is_raised_and_never_lowered(soft_limit_of_256: None) -> None:
    assert limits.allow_open_files(100) == 100
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
    assert limits.allow_open_files(700) == 700
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 700


def test_it_is_raised_to_the_hard_one_at_most() -> None:
    program = """
import resource
from hvdtrain.distributed import limits
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 600))
print(limits.allow_open_files(limits.needed(1024)), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "600 (600, 600)\n"


def test_rank_0_makes_room_for_all_workers_beside_what_horovod_opens(soft_limit_of_256: None) -> None:
    hub = Hub(600, one_host=True)
    hub.close()
    assert hub.open_files == limits.needed(600) > 2 * 600


@pytest.mark.parametrize(
    ("open_files", "remedy"),
    [
        (600, "rank 0 may open 600 files: ask for a limit (nofile) of 2560 on node0000"),
        (2560, "let the workers' hosts talk to each other on all TCP ports"),
    ],
)
def test_who_cannot_be_watched_is_told_with_what_is_in_the_way(open_files: int, remedy: str) -> None:
    workers = [Worker(f"node{rank // 8:04}", rank) for rank in range(1024)]
    hub = Hub(2, one_host=True)
    hub.close()
    hub.open_files = open_files
    told = watchdog._unreached(range(500, 1024), workers, hub)
    assert told.startswith("ranks 500-1023 on node0062, node0063, node0064, node0065 cannot reach port ")
    assert told.endswith(f"of node0000: their silence will go unnoticed → {remedy}")
