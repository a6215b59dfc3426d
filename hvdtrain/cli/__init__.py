"""The command line. The modules beside this one have the verbs: arguments, one line of help and one call each.

A verb imports its room inside itself, so that help, configuration and the like need no torch and answer at once.
"""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from hvdtrain import __version__
from hvdtrain.cli import data, jobs, machine, measure, plan, run, watch
from hvdtrain.cli.verbs import Verb
from hvdtrain.config.load import Parser
from hvdtrain.distributed.topology import Topology, from_environment
from hvdtrain.errors import INTERRUPTED, EnvironmentFault, HvdtrainError, PeerLost
from hvdtrain.log import logger

# A worker that leaves it to another one to say what is wrong stays this long: launchers end everyone as soon as one has
# left, and must not end the one that speaks before it has spoken.
PATIENCE_SECONDS = 5.0


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
        logger.debug("this is a bug", exc_info=True)  # reaches logs/rank-*.log only
        if topology.size == 1:
            traceback.print_exception(error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _fail(f"{type(error).__name__}: {error} (at {where.filename}:{where.lineno})", 1, topology)


def _fail(message: str, code: int, topology: Topology, *, everyones: bool = False) -> int:
    """Say what went wrong once. What all ranks see alike, as a usage error or an interrupt, is rank 0's to tell."""
    logger.debug("exit %d: %s", code, message)
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


def _leave(code: int) -> NoReturn:
    """End this process now: an orderly exit would wait in MPI for workers that wait for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _parser() -> Parser:
    parser = Parser(prog="hvdtrain", description="Horovod cluster training for ImageNet.")
    parser.add_argument("--version", action="version", version=f"hvdtrain {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    for module in (run, data, jobs, watch, measure, plan, machine):
        module.add(verbs)
    return parser
