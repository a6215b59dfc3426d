"""The report in words, for a terminal of 100 columns."""

import math
import re
import textwrap
from collections.abc import Iterator, Sequence

from hvdtrain.log import duration
from hvdtrain.metrics.efficiency import Baseline, Efficiency
from hvdtrain.report import changes, compare
from hvdtrain.report.causes import NOTHING_TO_GAIN, Diagnosis, Loss
from hvdtrain.report.pauses import wall_seconds
from hvdtrain.report.records import Run, Start, State
from hvdtrain.report.scaling import WANTED, Point, Scaling
from hvdtrain.report.study import Study
from hvdtrain.report.timeline import Timeline
from hvdtrain.report.units import (
    UNKNOWN,
    milliseconds,
    moment,
    number,
    percent,
    plural,
    tenths,
)

COLUMNS = 100
LABEL = 13  # columns before a value
BUCKETS_SHOWN = 12
RUNS_BESIDE = 5
HOLD = "\N{NO-BREAK SPACE}"


def render(studies: Sequence[Study], scaling: Scaling | None = None) -> str:
    """Each run's report, or where there are several a table of them first; then the scaling proof."""
    blocks = [beside(studies)] if len(studies) > 1 else []
    blocks += [one(study) for study in studies]
    blocks += [proof(scaling)] if scaling else []
    return f"\n\n{'─' * COLUMNS}\n\n".join(blocks)


def one(study: Study) -> str:
    blocks = [
        "\n".join(_line(name, value) for name, value in facts(study)),
        "\n".join(changes.table(study.sizes)),
        "\n".join(_table(study)),
        "\n".join(reasons(study.diagnosis)),
        "\n".join(_idle(study.diagnosis)),
        "\n".join(_timeline(study.timeline)) if study.timeline else "",
        "\n".join(_notes(study.diagnosis)),
    ]
    return "\n\n".join(block for block in blocks if block)


def facts(study: Study) -> Iterator[tuple[str, str]]:
    """Name and value of what a reader wants to know first."""
    run, account = study.run, study.account
    yield "run", str(run.folder)
    yield "what", what(run)
    yield "state", state(run)
    if changed := changes.changes(run):
        yield "workers", changes.in_words(changed)
    if run.evaluations:
        last = run.evaluations[-1]
        average = f" ({tenths(last.average_top1)} % averaged)" if math.isfinite(last.average_top1) else ""
        rates = f"top-1 {100 * last.top1:.2f} %{average}, top-5 {100 * last.top5:.2f} %"
        yield "accuracy", f"{rates} of {last.images:,} validation images at epoch {last.epoch:.2f}"
    if account:
        windows, steps = plural(len(account.windows), "report"), plural(account.steps, "step")
        speed = f"{number(account.images_per_second)} images/s, a step of {milliseconds(account.step_seconds)}"
        of = f" with {plural(account.workers, 'worker')}" if run.changes else ""
        yield "throughput", f"{speed}: mean of {steps}{of} in {windows}"
    if account and account.efficiency and account.baseline:
        n = run.batch_size
        constant = f", n = {n} of each worker constant" if n else ""
        yield "efficiency", f"{efficiency(account.efficiency)}; weak scaling{constant}"
        yield "against", against(account.baseline, run.start_of(account.baseline))
    if run.quarantined:
        some = ", ".join(f"{each.image} ({each.reason})" for each in run.quarantined[:2])
        more = " …" if len(run.quarantined) > 2 else ""
        yield "left out", f"{plural(len(run.quarantined), 'image')}: {some}{more}"


def what(run: Run, *, changed: str = "") -> str:
    """Model, precision, n, k and kn, and where.

    Args:
        changed: what is to be said beside the number of workers.
    """
    start, environment = run.start, run.environment
    of: list[str] = [run.config.model.name, run.config.precision] if run.config else []
    hosts = f" on {plural(len(environment.hosts), 'host')}" if len(environment.hosts) > 1 else ""
    device = f" ({', '.join(environment.device_names)})" if environment.device_names else ""
    of.append(f"{plural(start.world_size, 'worker')}{changed}{hosts}{device}")
    n = f"n = {run.batch_size}, " if run.batch_size else ""
    return f"{', '.join(of)}; {n}k = {start.world_size}, kn = {start.global_batch:,}"


def state(run: Run) -> str:
    reached = f"step {run.step:,}, epoch {run.epoch:.2f} of {run.epochs:.4g}"
    again = f", begun {run.launches} times" if run.launches > 1 else ""
    if run.state is State.FINISHED and run.end:
        return f"finished {moment(run.end.time)} after {duration(wall_seconds(run))}; {reached}{again}"
    if run.state is State.RUNNING:
        return f"running; {reached}{again}"
    if run.state is State.CHANGING:
        return f"changing workers; last sign of life {moment(run.heard)}; {reached}{again}"
    if run.state is State.PREEMPTED:
        return f"preempted {moment(run.heard)}, all saved; {reached}{again}"
    return f"killed, or ended by an error: last sign of life {moment(run.heard)}; {reached}{again}"


def efficiency(efficiency: Efficiency) -> str:
    """
    >>> efficiency(Efficiency(0.784, 0.779, 0.789, {}, "measured", 1))
    '78.4 % (95 % interval 77.9 to 78.9 %)'
    """
    if not math.isfinite(efficiency.low):
        return f"{tenths(efficiency.ratio)} % (no interval: one report)"
    return f"{tenths(efficiency.ratio)} % (95 % interval {tenths(efficiency.low)} to {tenths(efficiency.high)} %)"


def against(baseline: Baseline, start: Start) -> str:
    """Which baseline it is, how it was got and how old it was at that start, which it held for."""
    workers = "1 worker alone" if baseline.workers == 1 else plural(baseline.workers, "worker")
    n = start.global_batch / start.world_size
    pace = f"{number(baseline.workers * n / baseline.step_seconds)} images/s, a step of "
    pace += milliseconds(baseline.step_seconds)
    if baseline.source == "measured":
        return f"{workers}, measured by this run itself at {moment(baseline.measured_at)}: {pace}"
    age = start.time - baseline.measured_at
    old = f", {duration(age)} before this run" if age > 0 else ""
    origin = f" ({baseline.origin})" if baseline.origin else ""
    return f"{workers}, stored, measured {moment(baseline.measured_at)}{old}{origin}: {pace}"


def _table(study: Study) -> Iterator[str]:
    if study.account and study.diagnosis.losses:
        step = f"of a step of {milliseconds(study.account.step_seconds)}"
        yield f"{step:<34}{'share':>9}{'each step':>13}{'all steps':>16}"
    for _, label, share, seconds, whole in shares(study):
        yield f"  {label:<32}{tenths(share) + ' %':>9}{milliseconds(seconds):>13}{signed(whole):>16}"


def shares(study: Study) -> list[tuple[str, str, float, float, float]]:
    """Of what a step's time went to: palette's name, what to call it, share, seconds of each step and of all."""
    account, losses = study.account, study.diagnosis.losses
    if not account or not account.parts or not losses:
        return []
    if account.efficiency:
        share, label = account.efficiency.ratio, "efficiency: the baseline's step"
    else:  # what cannot be known has no line
        share, label = account.parts["compute"] / account.step_seconds, "computing, contended or not"
        losses = tuple(loss for loss in losses if loss.cause != "contention")
    first = "efficiency", label, share, share * account.step_seconds, share * account.seconds
    return [first, *((each.cause, each.cause, each.share, each.step_seconds, each.run_seconds) for each in losses)]


def signed(seconds: float) -> str:
    """
    >>> signed(36.2), signed(-36.2), signed(-0.01)
    ('36 s', '-36 s', '0.0 s')
    """
    return f"-{duration(-seconds)}" if seconds <= -0.05 else duration(seconds)


def reasons(diagnosis: Diagnosis) -> Iterator[str]:
    """Why not better, numbered."""
    worth_it = [loss for loss in diagnosis.losses if loss.evidence]
    if diagnosis.losses and not worth_it:
        yield f"nothing costs as much as {percent(NOTHING_TO_GAIN)} of a step"
    for place, loss in enumerate(worth_it, 1):
        yield from ([""] if place > 1 else [])
        yield f"{place}. {title(loss)}"
        yield from wrapped("; ".join(loss.evidence), "   ")
        for position, advice in enumerate(loss.advice):
            yield from wrapped(advice, "   try  " if position == 0 else "   or   ", "        ")


def title(loss: Loss) -> str:
    names = {"communication": "exposed communication", "input": "waiting for input", "straggler": "stragglers"}
    return f"{names.get(loss.cause, loss.cause)}: {percent(loss.share)} of a step, {milliseconds(loss.step_seconds)}"


def _idle(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.idle:
        yield f"{'besides training':<34}{'of the run':>10}{'':>12}{'in all':>16}"
    for each in diagnosis.idle:
        pause = each.pause
        times = f", {pause.times:,} times" if pause.times > 1 else ""
        times = f", {plural(pause.times, 'step')}" if pause.reason == "repeated" else times
        yield f"  {pause.reason + times:<32}{tenths(each.share) + ' %':>10}{'':>12}{duration(pause.seconds):>16}"
        yield from wrapped(each.advice, "    try  ", "         ") if each.advice else ()


def _timeline(timeline: Timeline) -> Iterator[str]:
    cut = "" if timeline.whole else ", which breaks off"
    yield from wrapped(f"Horovod's timeline {timeline.file}{cut}; mean of each sum", "")
    yield f"  {'bucket':<24}{'sums':>8}{'negotiation':>14}{'queue':>12}{'ring':>12}{'longest ring':>15}"
    for each in timeline.buckets[:BUCKETS_SHOWN]:
        times = f"{milliseconds(each.negotiation):>14}{milliseconds(each.queue):>12}{milliseconds(each.ring):>12}"
        yield f"  {each.name[:24]:<24}{each.sums:>8,}{times}{milliseconds(each.longest_ring):>15}"
    if len(timeline.buckets) > BUCKETS_SHOWN:
        yield f"  and {len(timeline.buckets) - BUCKETS_SHOWN} more"
    if timeline.last:
        some = [f"rank {rank} {percent(times / timeline.told)}" for rank, times in list(timeline.last.items())[:4]]
        yield from wrapped(f"ready last, of {timeline.told:,} sums of which that is known: {', '.join(some)}", "  ")
    if timeline.told < timeline.sums:
        yield "  HOROVOD_CACHE_CAPACITY=0 makes Horovod write who was ready when in every sum"


def _notes(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.notes:
        yield "notes"
    for line in diagnosis.notes:
        yield from wrapped(line, "  ")


def beside(studies: Sequence[Study]) -> str:
    """Several runs, a column each, as many as fit beside each other."""
    blocks = []
    for first in range(0, len(studies), RUNS_BESIDE):
        some = studies[first : first + RUNS_BESIDE]
        table = [("run", [study.run.name for study in some]), *compare.rows(some)]
        lines = [f"{name:<18}" + "".join(f"{value[:15]:>16}" for value in values) for name, values in table]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def proof(scaling: Scaling) -> str:
    """The scaling table that allocation committees ask for."""
    rows = [("workers", "images/s", "efficiency", "95 % interval", "from"), *map(point, scaling.points)]
    lines = [_line(name, value) for name, value in scaling_facts(scaling)]
    lines += ["", *(f"  {k:>7}{x:>14}{e:>13}{interval:>20}   {whence}" for k, x, e, interval, whence in rows), ""]
    return "\n".join([*lines, *wrapped(verdict(scaling), "")])


def scaling_facts(scaling: Scaling) -> Iterator[tuple[str, str]]:
    of = [scaling.model, scaling.precision]
    of += [f"n = {scaling.batch_size} of each worker constant"] if scaling.batch_size else []
    of += [f"{scaling.image_size} pixels"] if scaling.image_size else []
    yield "scaling", f"weak: {', '.join(filter(None, of))}"
    yield "hardware", scaling.device_name or UNKNOWN
    yield "measured", scaling.date or UNKNOWN
    yield "command", scaling.command or UNKNOWN
    if scaling.code:
        yield "code", scaling.code


def point(point: Point) -> tuple[str, str, str, str, str]:
    """Workers, images per second, efficiency, its interval, and whence."""
    one = point.measured
    interval = f"{tenths(point.low)} to {tenths(point.high)} %" if math.isfinite(point.low) else UNKNOWN
    interval = "by definition" if point.low == point.high else interval
    whence = f"run {one.run}" if one.run else plural(len(one.rounds), "round")
    return (
        f"{one.workers:,}",
        number(one.images_per_second.value),
        f"{tenths(point.efficiency)} %",
        interval,
        whence,
    )


def verdict(scaling: Scaling) -> str:
    """What is proven of the efficiency that is asked for."""
    wanted = percent(WANTED)
    defined = f"E(k|{scaling.base}) = (X(k)/k) / (X({scaling.base})/{scaling.base}), X in images/s"
    if scaling.reaches:
        return f"{defined}: at least {wanted} up to k = {scaling.reaches}, by the lower end of every interval."
    return f"{defined}: {wanted} is not proven for any k above {scaling.base}."


def _line(label: str, value: str) -> str:
    return "\n".join(wrapped(value, f"{label:<{LABEL}}", " " * LABEL))


def wrapped(text: str, first: str = "", others: str | None = None, *, columns: int = COLUMNS) -> list[str]:
    """Lines, none of which ends between a number and its unit, or at an equals sign.

    Args:
        first: what the first line begins with; so do the others, unless `others` is given.
    """
    held = re.sub(r"(?<=\d) (?=(?:%|ms|s|min|h|d|MiB|GB/s|MB/s|images/s)\b|%)|(?<==) | (?==)", HOLD, text)
    lines = textwrap.wrap(
        held,
        columns,
        initial_indent=first,
        subsequent_indent=first if others is None else others,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [line.replace(HOLD, " ") for line in lines]
