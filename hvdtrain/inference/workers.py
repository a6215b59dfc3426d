"""The workers of an evaluation: what a run does before its first step, but for what only training needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hvdtrain import log
from hvdtrain.config.schema import Config
from hvdtrain.distributed import device as devices
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm
from hvdtrain.distributed.cores import bind
from hvdtrain.distributed.topology import Topology
from hvdtrain.distributed.tuning import tune
from hvdtrain.distributed.watchdog import Watchdog
from hvdtrain.log import logger
from hvdtrain.train import alike
from hvdtrain.train.data import Machine


@dataclass(frozen=True)
class Place:
    """This worker's."""

    comm: Comm
    machine: Machine
    activity: Activity
    """Is watched."""


@contextmanager
def workers(config: Config, topology: Topology) -> Iterator[Place]:
    """This worker's place among them, and what of the machine is its. Every worker enters; that is collective.

    Within they are watched as in training, but nothing is written into the run's directory.

    Raises:
        ConfigError: their settings differ.
        EnvironmentFault: their software does, or Horovod does not start.
        PeerLost: one of them has gone.
    """
    activity = Activity()
    comm: Comm = SoloComm()
    if topology.size > 1:
        os.environ.update(tune(os.environ, config.distributed, on_cpus_of_one_node=False).environment)
        comm = HorovodComm(topology, activity=activity)
    log.configure(comm.rank)
    device = devices.select(comm)
    for warning in alike.check(config, comm, device):
        if comm.rank == 0:
            logger.warning("%s", warning)
    share = devices.share_of_cores(comm)
    bind(comm, wanted=config.distributed.bind == "auto")
    devices.use_threads(config.distributed.threads or share)
    with Watchdog(comm, activity, silence_seconds=config.distributed.watchdog_seconds, run_dir=None):
        yield Place(comm, Machine(device, share, topology.launcher), activity)
    comm.close()
