"""The command line: every verb with its arguments, one line of help and one call.

A verb imports its room inside itself, so that help, configuration and the like need no torch and answer at once.
"""

import os
import sys
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hvdtrain import __version__
from hvdtrain.config.load import Parser, add_options, from_options, to_yaml
from hvdtrain.distributed.topology import Topology, from_environment
from hvdtrain.errors import ConfigError, HvdtrainError, PeerLost
from hvdtrain.log import logger

if TYPE_CHECKING:
    from pydantic_settings import CliSettingsSource

    from hvdtrain.config.schema import Config

# A worker that leaves it to another one to say what is wrong stays this long: launchers end everyone as soon as one has
# left, and must not end the one that speaks before it has spoken.
PATIENCE_SECONDS = 5.0
INTERRUPTED = 130  # as shells say it: 128 + SIGINT

Verb = Callable[[Namespace, Topology], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the process's exit code. Under a launcher a failure does not return: see `_leave`."""
    topology = Topology(rank=0, size=1, local_rank=0, launcher="none")
    try:
        topology = from_environment(os.environ)
        options, unknown = _parser().parse_known_args(arguments)
        if unknown:
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        verb: Verb = options.verb
        return verb(options, topology)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, topology)
    except HvdtrainError as error:
        if isinstance(error, PeerLost):
            time.sleep(PATIENCE_SECONDS)  # who caused it, says so
        return _fail(str(error), error.exit_code, topology)
    except BrokenPipeError:
        return 141
    except Exception as error:
        logger.debug("this is a bug", exc_info=True)  # reaches logs/rank-*.log only
        if topology.size == 1:
            traceback.print_exception(error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _fail(f"{type(error).__name__}: {error} (at {where.filename}:{where.lineno})", 1, topology)


def _fail(message: str, code: int, topology: Topology) -> int:
    """Say what went wrong once. A usage error or an interrupt, which all ranks see alike, is rank 0's to tell."""
    everyones = code in (ConfigError.exit_code, INTERRUPTED)
    logger.debug("exit %d: %s", code, message)
    if topology.rank == 0 or not everyones:
        who = f"rank {topology.rank}: " if topology.size > 1 and not everyones else ""
        lines = [f"hvdtrain: {who}{line}" for line in message.splitlines()]
        print("\n".join(lines), file=sys.stderr, flush=True)
    else:
        time.sleep(PATIENCE_SECONDS)
    if topology.size > 1:
        _leave(code)
    return code


def _leave(code: int) -> NoReturn:
    """End this process now: an orderly exit would wait in MPI for workers that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> Parser:
    parser = Parser(prog="hvdtrain", description="Horovod cluster training for ImageNet.")
    parser.add_argument("--version", action="version", version=f"hvdtrain {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    train = verbs.add_parser("train", help="train, alone or as one of the workers of mpirun, horovodrun or srun")
    options = add_options(train)
    train.set_defaults(parser=train, verb=lambda given, topology: _train(given, topology, options))

    config = verbs.add_parser("config", help="print the whole configuration that a command line means, as YAML")
    resolved = add_options(config)
    config.set_defaults(parser=config, verb=lambda given, _: _config(given, resolved))

    data = verbs.add_parser("data", help="make data sets").add_subparsers(
        metavar="VERB", required=True, parser_class=Parser
    )
    demo = data.add_parser("demo", help="write the embedded digits (UCI, CC BY 4.0) in ImageNet's layout")
    demo.add_argument("folder", type=Path, metavar="DIR", help="where to write train/ and val/")
    demo.set_defaults(parser=demo, verb=_demo)

    doctor = verbs.add_parser("doctor", help="what a run would find on this machine, with a remedy for what is wrong")
    doctor.add_argument("--json", action="store_true", help="the same for machines")
    doctor.set_defaults(parser=doctor, verb=_doctor)
    return parser


def _train(given: Namespace, topology: Topology, options: "CliSettingsSource[Config]") -> int:
    config = from_options(options, given)  # before anything heavy: a typing error costs no start-up
    from hvdtrain.train.run import run

    run(config, topology)
    return 0


def _config(given: Namespace, options: "CliSettingsSource[Config]") -> int:
    print(to_yaml(from_options(options, given)), end="")
    return 0


def _demo(given: Namespace, _: Topology) -> int:
    from hvdtrain.data import demo

    written = demo.write(given.folder)
    print(f"{written['train']} training and {written['val']} validation images in {given.folder}")
    return 0


def _doctor(given: Namespace, _: Topology) -> int:
    from hvdtrain import doctor

    findings = doctor.examine()
    print(doctor.as_json(findings) if given.json else doctor.render(findings))
    return 0 if doctor.usable(findings) else 1
