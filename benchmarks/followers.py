"""The other workers' ends of the watch: `python followers.py K` with rank 0's offer on its standard input.

K - 1 real links and followers in one process, which says how many have connected. From then on each sends its
beat every second or two, at a moment of its own, and reads what it is told. When the input ends, all connections end at
once, as those of hosts that were lost; after `bye` on it, in order.
"""

import json
import select
import sys
import threading
import time

from hvdtrain.distributed import limits
from hvdtrain.distributed.activity import TRAINING
from hvdtrain.distributed.chief import Beat, Worker, beat_seconds
from hvdtrain.distributed.follower import Follower
from hvdtrain.distributed.wire import Link, Offer, connect

AT_ONCE = 32  # threads that connect
TICK_SECONDS = 0.05
SILENCE_SECONDS = 300.0  # as by default


def main() -> None:
    size = int(sys.argv[1])
    limits.allow_open_files(limits.needed(size))
    offer = Offer(**json.loads(sys.stdin.readline()))
    followers = joined(offer, size)
    print(len(followers), flush=True)
    live(followers, beat_seconds(size, SILENCE_SECONDS))


def joined(offer: Offer, size: int) -> list[Follower]:
    """In order of rank; those that could not connect left out."""
    links: dict[int, Link] = {}
    ranks = iter(range(1, size))
    lock = threading.Lock()

    def connect_some() -> None:
        while True:
            with lock:
                rank = next(ranks, None)
            if rank is None:
                return
            if link := connect(offer, rank):
                links[rank] = link

    threads = [threading.Thread(target=connect_some) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    workers = [Worker(f"h{rank // 8}", 1000 + rank) for rank in range(size)]
    return [
        Follower(rank, workers, time.monotonic(), silence_seconds=SILENCE_SECONDS, link=links[rank])
        for rank in sorted(links)
    ]


def live(followers: list[Follower], seconds: float) -> None:
    """Each at its own tick of so many `seconds`, as many at each."""
    ticks, began, tick = round(seconds / TICK_SECONDS), time.monotonic(), 0
    while not select.select([sys.stdin], [], [], max(0.0, began + tick * TICK_SECONDS - time.monotonic()))[0]:
        now = time.monotonic()
        for place in range(tick % ticks, len(followers), ticks):
            followers[place].look(now)
            followers[place].beat(now, Beat(tick // ticks, TRAINING, "gradients.3", round(0.1 * (place % 5), 1)))
        tick += 1
    for follower in followers if sys.stdin.readline() else ():
        follower.leave(orderly=True, wait_seconds=0.0)


if __name__ == "__main__":
    main()
