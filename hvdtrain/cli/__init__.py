"""The command line. The modules beside this one have the verbs: arguments, one line of help and one call each.

A verb imports its room inside itself, so that help, configuration and the like need no torch and answer at once.
"""

import argparse
import math
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from hvdtrain import __version__
from hvdtrain.cli import bench, data, jobs, machine, measure, plan, run, trained, watch
from hvdtrain.cli.verbs import Verb
from hvdtrain.config.load import Parser
from hvdtrain.distributed import allocator
from hvdtrain.distributed.topology import Topology, from_environment
from hvdtrain.errors import INTERRUPTED, EnvironmentFault, HvdtrainError, PeerLost, of_system
from hvdtrain.log import logger

ABOUT = """\
Horovod cluster training for ImageNet.

    hvdtrain train --config demo --data.dir runs/digits
    hvdtrain VERB --help
"""

# A worker that leaves it to another one to say what is wrong stays this long: launchers end everyone as soon as one has
# left, and must not end the one that speaks before it has spoken.
PATIENCE_SECONDS = 5.0
# From one rank to that of twice its number: of many that have the same to say, each leaves it to those before it for a
# moment. A launcher ends all within that, and the log has some lines in place of a thousand.
TURN_SECONDS = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the process's exit code. Under a launcher a failure does not return: see `_leave`."""
    if arguments is None and sys.argv[1:2] == ["train"]:
        allocator.begin_again()
    topology = Topology(rank=0, size=1, local_rank=0, launcher="none")
    try:
        topology = from_environment(os.environ)
        options, unknown = _parser().parse_known_args(arguments)
        if unknown:
            options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        verb: Verb = options.verb
        return verb(options, topology)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, topology, everyones=True)
    except HvdtrainError as error:
        if isinstance(error, PeerLost):
            time.sleep(PATIENCE_SECONDS)  # who caused it, says so
        return _fail(str(error), error.exit_code, topology, everyones=error.everyones)
    except BrokenPipeError:
        return 141
    except MemoryError:
        return _fail("out of memory", EnvironmentFault.exit_code, topology)
    except ImportError as error:
        logger.debug("something is missing, or in the way", exc_info=True)
        return _fail(f"{error} → hvdtrain doctor", EnvironmentFault.exit_code, topology)
    except Exception as error:
        if isinstance(error, OSError) and (fault := of_system(error)):
            logger.debug("the system refuses", exc_info=True)
            return _fail(str(fault), fault.exit_code, topology)
        logger.debug("this is a bug", exc_info=True)  # reaches logs/rank-*.log only
        if topology.size == 1:
            traceback.print_exception(error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _fail(f"{type(error).__name__}: {error} (at {where.filename}:{where.lineno})", 1, topology)


def _fail(message: str, code: int, topology: Topology, *, everyones: bool = False) -> int:
    """Say what went wrong once. What all ranks see alike, as a usage error or an interrupt, is rank 0's to tell."""
    logger.debug("exit %d: %s", code, message)
    time.sleep(turn_seconds(topology.rank))
    if topology.rank == 0 or not everyones:
        who = f"rank {topology.rank}: " if topology.size > 1 and not everyones else ""
        lines = [f"hvdtrain: {who}{line}" for line in message.splitlines()]
        print("\n".join(lines), file=sys.stderr, flush=True)
    else:
        time.sleep(2 * PATIENCE_SECONDS)
        print(f"hvdtrain: rank {topology.rank}: {message}", file=sys.stderr, flush=True)  # rank 0 has no such failure
    if topology.size > 1:
        _leave(code)
    return code


def turn_seconds(rank: int) -> float:
    """How long this rank leaves it to those before it to say what it would say.

    >>> [turn_seconds(rank) for rank in (0, 1, 7, 1023)]
    [0.0, 0.2, 0.6, 2.0]
    """
    return round(TURN_SECONDS * math.log2(rank + 1), 3)


def _leave(code: int) -> NoReturn:
    """End this process now: an orderly exit would wait in MPI for workers that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> Parser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="hvdtrain", description=ABOUT, formatter_class=shape)
    parser.add_argument("--version", action="version", version=f"hvdtrain {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    for module in (run, trained, data, jobs, watch, bench, measure, plan, machine):
        module.add(verbs)
    return parser
