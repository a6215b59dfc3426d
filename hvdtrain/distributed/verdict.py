"""Whether a job still gets on, judged from what is known of each worker, and the words for it when it does not.

Nothing here waits, asks a clock or talks to anybody.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hvdtrain.distributed.activity import UNITS
from hvdtrain.log import duration

LOGS = "{logs}"
DOUBT_SECONDS = 4.0  # of silence, after which nobody else is blamed: the steps have ended because of it
MOST_NAMED = 4  # workers, or hosts, that a message names one by one


@dataclass(frozen=True)
class Sight:
    """What is known of a worker that is watched."""

    rank: int
    host: str
    pid: int
    silent_seconds: float
    """Since it was last heard of."""
    lost: bool = False
    """Its connection has ended, and it had not said goodbye."""
    step: int = 0
    phase: str = "start-up"
    collective: str = ""
    """What it waits for the others in, see `Activity`; empty while it does not."""
    idle_seconds: float = 0.0
    """Since it last got on, as it said itself."""

    @property
    def place(self) -> str:
        return f"rank {self.rank} on {self.host} (process {self.pid})"

    @property
    def doing(self) -> str:
        return f"{self.phase}, {self.unit} {self.step}"

    @property
    def unit(self) -> str:
        return UNITS.get(self.phase, "step")


@dataclass(frozen=True)
class Verdict:
    ranks: list[int]
    """Whom the message names."""
    message: str
    remedy: str
    """`LOGS` in it stands for the folder of the logs."""

    def remedy_with(self, logs: Path | None) -> str:
        """
        Args:
            logs: None where the stacks go to standard error.
        """
        if logs is None:
            return re.sub(rf"in {re.escape(LOGS)}/rank-\S+\.log", "on standard error", self.remedy)
        return self.remedy.replace(LOGS, str(logs))


def judge(sights: Sequence[Sight], silence_seconds: float) -> Verdict | None:
    """None while the job gets on.

    A worker must be heard of whatever it does. One that trains or evaluates must get on, too; but while a worker does
    something else, or gets on, and waits for nobody in it, the others may wait for that one.

    Args:
        sights: of the workers that are watched, in order of rank.
    """
    silent = [sight for sight in sights if sight.silent_seconds >= silence_seconds]
    if silent:
        others = [sight for sight in sights if sight.silent_seconds < silence_seconds]
        remedy = f"{_look_at(silent[0])}, where state T is stopped; stacks of the others in {LOGS}/rank-*.log"
        return Verdict([sight.rank for sight in silent], _with_waiting(_silence(silent), others), remedy)
    doubt_seconds = min(DOUBT_SECONDS, silence_seconds / 2)
    if any(sight.silent_seconds >= doubt_seconds for sight in sights):  # it may turn out to be the cause
        return None
    stuck = [sight for sight in sights if sight.phase in UNITS and sight.idle_seconds >= silence_seconds]
    moving = [sight for sight in sights if sight.phase not in UNITS or sight.idle_seconds < silence_seconds]
    if not stuck or any(not sight.collective for sight in moving):
        return None
    return _of_stuck(sights, min(sight.idle_seconds for sight in stuck), stuck[0].unit)


def lost_peers(sights: Iterable[Sight], silence_seconds: float) -> str:
    """Who has gone, as far as is known, after a collective failed; empty where nobody has.

    Args:
        silence_seconds: less than before a verdict, for something is known to be wrong.
    """
    gone = [sight for sight in sights if sight.lost or sight.silent_seconds >= silence_seconds]
    return _silence(gone) if gone else ""


def ranks_in_words(ranks: Sequence[int]) -> str:
    """
    >>> ranks_in_words([3]), ranks_in_words([0, 2, 3, 4, 7]), ranks_in_words([0, 1])
    ('rank 3', 'ranks 0, 2-4, 7', 'ranks 0, 1')
    """
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"rank{'s' * (len(ranks) > 1)} {_few(parts, 2 * MOST_NAMED)}"


def _of_stuck(sights: Sequence[Sight], seconds: float, unit: str) -> Verdict:
    busy, waiting = [sight for sight in sights if not sight.collective], _waiting(sights)
    if busy:
        who = _few([f"{sight.place}" for sight in busy], MOST_NAMED)
        does = f"does no {unit}" if len(sights) == 1 else "waits for nobody" if len(busy) == 1 else "wait for nobody"
        message = f"no {unit} was done for {duration(seconds)}: {who} {does} ({busy[0].doing})"
        if waiting:
            message += f" and {'holds' if len(busy) == 1 else 'hold'} up the others: {waiting}"
        rank = busy[0].rank
        return Verdict([sight.rank for sight in busy], message, f"see in {LOGS}/rank-{rank}.log where it is")
    named = [sight.rank for sight in sights]
    if len({sight.collective for sight in sights}) == 1:
        message = f"no {unit} was done for {duration(seconds)}: {waiting}, where all that are watched have come"
        return Verdict(
            named, message, f"hvdtrain doctor, for the network between them; stacks of all in {LOGS}/rank-*.log"
        )
    message = f"no {unit} was done for {duration(seconds)}: workers wait in different collectives: {waiting}"
    return Verdict(named, message, f"see in {LOGS}/rank-*.log where they part")


def _silence(silent: Sequence[Sight]) -> str:
    if len(silent) <= MOST_NAMED:
        return "; ".join(_last_seen(sight) for sight in silent)
    by_host = groupby(sorted(silent, key=lambda sight: (sight.host, sight.rank)), key=lambda sight: sight.host)
    hosts = [f"{ranks_in_words([sight.rank for sight in group])} on {host}" for host, group in by_host]
    seconds = duration(min(sight.silent_seconds for sight in silent))
    return f"nothing was heard of {len(silent)} workers for {seconds} or longer: {_few(hosts, MOST_NAMED)}"


def _last_seen(sight: Sight) -> str:
    seen = f"{duration(sight.silent_seconds)}, last seen in {sight.doing}"
    if sight.lost:
        return f"{sight.place} closed its connection, and nothing was heard of it for {seen}"
    return f"nothing was heard of {sight.place} for {seen}"


def _with_waiting(message: str, others: Sequence[Sight]) -> str:
    waiting = _waiting(others)
    return f"{message}; {waiting}" if waiting else message


def _waiting(sights: Sequence[Sight]) -> str:
    """Who waits in what, the collective with the fewest last: that is where to look."""
    where: dict[str, list[int]] = {}
    for sight in sights:
        if sight.collective:
            where.setdefault(sight.collective, []).append(sight.rank)
    parts = [
        f"{ranks_in_words(ranks)} wait{'s' * (len(ranks) == 1)} in {collective}"
        for collective, ranks in sorted(where.items(), key=lambda item: (-len(item[1]), item[1]))
    ]
    return "; ".join(parts if len(parts) <= MOST_NAMED else [*parts[: MOST_NAMED - 1], "…", parts[-1]])


def _look_at(sight: Sight) -> str:
    return f"ssh {sight.host} ps -o pid,stat,wchan:30,args -p {sight.pid}"


def _few(parts: Sequence[str], most: int) -> str:
    """
    >>> _few(["a", "b", "c"], 3), _few(["a", "b", "c", "d"], 2)
    ('a, b, c', 'a, b and 2 more')
    """
    return ", ".join(parts) if len(parts) <= most else f"{', '.join(parts[:most])} and {len(parts) - most} more"
