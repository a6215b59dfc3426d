"""train, launch, config."""

import argparse
from argparse import Namespace
from typing import TYPE_CHECKING

from hvdtrain.config.load import add_options, from_options, to_yaml
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from pydantic_settings import CliSettingsSource

    from hvdtrain.cli.verbs import Verbs
    from hvdtrain.config.schema import Config

TRAIN = """\
Train, alone or as one of the workers of mpirun, horovodrun or srun. Settings come
from a YAML file or a preset (--config), and from dotted options, the last winning.

    hvdtrain train --config demo --data.dir runs/digits
    mpirun -np 8 --bind-to none hvdtrain train --config goyal_r50_256 --data.dir /imagenet \\
        --run.name r50 --resume auto

Exit codes: 0 finished; 2 wrong settings; 3 this machine cannot; 4 the images;
5 a checkpoint; 6 a worker was lost; 7 a worker fell silent; 8 a loss was not finite;
75 stopped by a signal, all is saved; 130 interrupted.
"""
CONFIG = """\
Print the full configuration that a command line resolves to, as YAML: every
setting, also those that nobody gave. Starts nothing.

    hvdtrain config --config goyal_r50_8k --precision bf16
    hvdtrain config --config demo --epochs 3 > mine.yaml
"""
LAUNCH = """\
Start a launcher, and make sure that the job ends: once it had workers on this
host and none of them is left, it has to end within --grace, or it is ended with
all that it started. mpirun waits for ever for a host that was lost.

    hvdtrain launch mpirun -np 256 --hostfile hosts hvdtrain train --config ...
    hvdtrain launch --grace 60 horovodrun -np 16 -H a:8,b:8 hvdtrain train ...

Input, output and signals reach the launcher as without hvdtrain. The exit code
is the launcher's, or 128 + the signal that ended it; 6 if it outlived its
workers. A script that goes on after its workers needs a longer --grace. Where
no worker is seen on this host, as under salloc on a login node or with srun,
the launcher's own end is waited for. Of an elastic horovodrun the ssh to other
hosts are workers too, and --grace begins after its --elastic-timeout, within
which hosts may come back; an ssh to a host that was lost ends only if ssh has
a ServerAliveInterval.
"""


def add(verbs: "Verbs") -> None:
    shape = argparse.RawDescriptionHelpFormatter
    train = verbs.add_parser(
        "train",
        help="train, alone or as one of the workers of mpirun, horovodrun or srun",
        description=TRAIN,
        formatter_class=shape,
    )
    options = add_options(train)
    train.set_defaults(parser=train, verb=lambda given, topology: _train(given, topology, options))

    launch = verbs.add_parser(
        "launch",
        help="start mpirun or horovodrun, and stop it if it outlives its workers",
        usage="%(prog)s [-h] [--grace SECONDS] [--] COMMAND …",
        description=LAUNCH,
        formatter_class=shape,
    )
    launch.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long the launcher may go on when its workers have ended; default: %(default)g",
    )
    launch.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="COMMAND …", help="the launcher, and all that belongs to it"
    )
    launch.set_defaults(parser=launch, verb=_launch)

    config = verbs.add_parser(
        "config",
        help="print the full configuration that a command line resolves to, as YAML",
        description=CONFIG,
        formatter_class=shape,
    )
    resolved = add_options(config)
    config.set_defaults(parser=config, verb=lambda given, _: _config(given, resolved))


def _train(given: Namespace, topology: Topology, options: "CliSettingsSource[Config]") -> int:
    from hvdtrain.distributed.preempt import StopRequest

    request = StopRequest().listen()  # a signal that comes during the start-up must not kill
    config = from_options(options, given)  # before anything heavy: a typing error costs no start-up
    from hvdtrain.train.run import run

    run(config, topology, request)
    return 0


def _launch(given: Namespace, _: Topology) -> int:
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command or not command[0]:
        given.parser.error("no command: expected such as hvdtrain launch mpirun -np 2 hvdtrain train")
    if not given.grace > 0:
        given.parser.error(f"--grace {given.grace:g}: expected more than 0 seconds")
    from hvdtrain.distributed.supervise import supervise

    return supervise(command, grace_seconds=given.grace)


def _config(given: Namespace, options: "CliSettingsSource[Config]") -> int:
    print(to_yaml(from_options(options, given)), end="")
    return 0
