"""The answers in words, for a terminal of 100 columns."""

import statistics
import textwrap
from collections.abc import Iterator, Sequence

from hvdtrain.log import duration
from hvdtrain.plan import residuals
from hvdtrain.plan.ask import Ask
from hvdtrain.plan.capacity import RECIPE_LIMIT, Deadline, Prediction
from hvdtrain.plan.fit import Fit
from hvdtrain.plan.goals import LARGEST_ERROR, goals
from hvdtrain.plan.series import Series, everything
from hvdtrain.plan.setting import Setting

COLUMNS = 100
LABEL = 13
ADVICE = {
    "computing": "nothing else costs as much as 2 % of a step; a faster device or less precision would help",
    "communication": "a larger {batch}, --wire fp16, or a faster {link} would hide it better",
    "negotiation": "workers agree on each sum before it begins; a larger {batch} spreads that over more images",
    "stragglers": "all wait for the slowest of each step; fewer workers with more images each would wait less",
    "input": "nodes cannot read and decode as fast as they compute: hvdtrain data pack, more cores, fewer GPUs a node",
}


def answer(ask: Ask, setting: Setting, found: Prediction) -> str:
    blocks = [_facts(ask, setting, found), _parts(found), _inputs(setting)]
    return "\n\n".join("\n".join(block) for block in blocks)


def deadline(ask: Ask, setting: Setting, found: Deadline) -> str:
    wanted = f"{duration(3600 * found.hours)}"
    if not found.meets:
        soonest = duration(3600 * found.fastest.hours)
        return "\n".join(_line("deadline", f"none meets {wanted}: {found.why}. The soonest end is after {soonest}"))
    slowest = f"at the slow end of the interval they take {duration(3600 * found.meets.hours_between[1])}"
    sure = f"{slowest}, {'in time too' if found.surely else 'too long'}"
    head = _line("deadline", f"{found.meets.workers:,} workers are the fewest that are done within {wanted}; {sure}")
    return "\n".join([*head, answer(ask, setting, found.meets)])


def curve(setting: Setting, found: Sequence[Prediction]) -> str:
    """A row for each number of workers."""
    money = setting.price is not None
    kinds = ["E_s", "E_w"] if any(map(_differ, found)) else ["E_s"] if setting.global_batch else ["E_w"]
    names = "".join(f"{kind:>8}" for kind in kinds)
    head = f"  {'workers':>7}{'images/s':>12}{'step':>11}{names}{'80 % interval':>17}{'to the end':>13}"
    lines = [head + (f"{'cost':>12}" if money else "") + "   limited by"]
    for each in found:
        shares = "".join(f"{100 * (each.efficiency if kind == 'E_s' else each.weak):>6.1f} %" for kind in kinds)
        interval = f"{100 * each.low:.0f} to {100 * each.high:.0f} %" if each.workers > 1 else "by definition"
        row = f"  {each.workers:>7,}{each.images_per_second:>12,.0f}{_ms(each.step.seconds):>11}"
        row += f"{shares}{interval:>17}{duration(3600 * each.hours):>13}"
        cost = each.cost(each.hours)
        lines.append(row + (f"{cost:>12,.0f}" if cost is not None else "") + f"   {each.limit}")
    return "\n".join(lines)


def _differ(found: Prediction) -> bool:
    """E_s and E_w, as they are printed: where fewer images at a time are slower."""
    return found.strong is not None and f"{found.strong:.3f}" != f"{found.weak:.3f}"


def fitted(fit: Fit) -> str:
    fixed = f"{1e6 * fit.fixed_seconds:.3g} ± {_two(1e6 * fit.fixed_error)} µs of a sum, whatever its size"
    if fit.hop_seconds is None:
        fixed += f"; with its {2 * (fit.workers - 1)} hops, which one number of workers does not tell from it"
    lines = [
        ("fixed", fixed),
        (
            "bandwidth",
            f"{fit.bytes_per_second / 1e9:.3g} ± {_two(fit.bytes_per_second_error / 1e9)} GB/s of each worker",
        ),
        ("between", "workers of a node" if fit.between == "within a node" else fit.between),
        ("jitter", f"{100 * fit.jitter:.0f} % of a sum, 1 standard deviation"),
        ("distance", f"{100 * fit.residual:.0f} % from measured to fitted, typically"),
        ("from", f"{fit.sums} sums of up to {fit.workers} workers; {fit.hardware}; {fit.date}"),
    ]
    if fit.hop_seconds is not None:
        lines.insert(1, ("hop", f"{1e6 * fit.hop_seconds:.3g} ± {_two(1e6 * fit.hop_error)} µs"))
    return "\n".join(line for name, value in lines for line in _line(name, value))


def validation() -> str:
    """Every published series beside what is predicted of it without it, and why it does not count where it does not."""
    errors = residuals.of_series()
    lines = [f"{'series':<32}{'kind':<6}{'k':>6}{'measured':>10}{'predicted':>11}{'error':>8}"]
    for name, error in errors.items():
        rows = [row for row in residuals.rows() if row.series.name == name]
        base = rows[0].series.base.workers
        lines.append(f"{name:<32}{rows[0].series.kind:<6}{base:>6}{'base':>10}{'':>11}{100 * error:>6.1f} %")
        lines += [
            f"{'':<38}{row.workers:>6}{100 * row.measured:>8.1f} %{100 * row.predicted:>9.1f} %{100 * row.error:>+6.1f}"
            for row in rows
        ]
    lines += ["", "not counted, and why"]
    lines += [line for each in everything() if not each.used for line in _excluded(each)]
    lines += ["", *_summary(errors), "", *_goals()]
    return "\n".join(lines)


def _summary(errors: dict[str, float]) -> Iterator[str]:
    large = [name for name, error in errors.items() if error > LARGEST_ERROR]
    middle = statistics.median(errors.values())
    yield f"{len(errors)} series; error of efficiency, each series left out of the fit that predicts it:"
    yield f"  mean {100 * residuals.mean():.1f} %, median {100 * middle:.1f} %; above 10 %: {len(large)} series"
    yield from textwrap.wrap(", ".join(large), COLUMNS, initial_indent="  ", subsequent_indent="  ")


def _goals() -> Iterator[str]:
    yield f"{'':<40}{'reached':>10}  goal"
    for each in goals():
        yield f"{each.what:<40}{each.reached:>10}  {each.wanted:<24}{'holds' if each.holds else 'missed'}"


def _excluded(series: Series) -> list[str]:
    return textwrap.wrap(
        f"{series.name}: {series.reason}",
        COLUMNS,
        initial_indent="  ",
        subsequent_indent="      ",
        break_on_hyphens=False,
    )


def _facts(ask: Ask, setting: Setting, found: Prediction) -> Iterator[str]:
    where = f"{found.workers:,} {ask.gpu}, {min(found.workers, ask.gpus_per_node)} a node"
    micro = f" x {found.micro_batches} micro-batches" if found.micro_batches > 1 else ""
    yield from _line(
        "plan", f"{ask.model}, {ask.precision}, {where}; n = {found.batch}{micro}, kn = {found.minibatch:,}"
    )
    between = _between(f"{found.slow:,.0f}", f"{found.fast:,.0f}", ": 80 % intervals, here and below")
    yield from _line(
        "throughput", f"{found.images_per_second:,.0f} images/s{between}, a step of {_ms(found.step.seconds)}"
    )
    base = "by definition" if found.workers == 1 else f"{100 * found.low:.0f} to {100 * found.high:.0f} %"
    constant = "n" if found.strong is None else "kn"
    efficiency = f"{'E_w' if found.strong is None else 'E_s'} = {100 * found.efficiency:.1f} % ({base})"
    also = f"; E_w = {100 * found.weak:.1f} %" if _differ(found) else ""
    yield from _line("efficiency", f"{efficiency} at {constant} constant, of one worker{also}")
    yield from _line("to the end", _end(setting, found))
    batch = "--global-batch" if setting.global_batch else "--batch"
    link = "link within the node" if setting.fabric.nodes(found.workers) == 1 else "--link"
    yield from _line("limited by", f"{found.limit}: {ADVICE[found.limit].format(link=link, batch=batch)}")
    alone = setting.alone(found.batch)
    if found.batch < setting.batch and alone.how == "assumed":
        taken = f"at n = {found.batch} a worker is taken to compute {alone.images_per_second:,.0f} images/s"
        yield from _line("assumed", f"{taken}, {alone.source}; fewer are slower: measure it, or say a smaller --batch")
    if found.minibatch > RECIPE_LIMIT:
        yield from _line(
            "accuracy",
            f"kn is above {RECIPE_LIMIT:,}, up to which the recipe keeps its accuracy (Goyal et al. 2017, figure 1)",
        )


def _end(setting: Setting, found: Prediction) -> str:
    fewest, most = found.hours_between
    between = _between(duration(3600 * fewest), duration(3600 * most))
    end = f"{duration(3600 * found.hours)}{between} of training: {setting.epochs:g} epochs of {setting.images:,} images"
    cost, least, highest = map(found.cost, (found.hours, fewest, most))
    if cost is not None:
        between = _between(f"{least:,.0f}", f"{highest:,.0f}")
        end += f"; costs {cost:,.0f}{between}, at {setting.price:g} for an hour of each"
    return f"{end}, without evaluation and checkpoints"


def _between(low: str, high: str, what: str = "") -> str:
    return f" ({low} to {high}{what})" if low != high else ""


def _parts(found: Prediction) -> Iterator[str]:
    taken = found.step
    yield f"{'of a step of ' + _ms(taken.seconds):<34}{'share':>9}{'each step':>13}"
    parts = [
        ("computing", taken.compute),
        ("communication, exposed", taken.communication),
        ("negotiation, exposed", taken.negotiation),
        ("stragglers", taken.straggler),
        ("input", taken.input),
    ]
    for name, seconds in parts:
        yield f"  {name:<32}{100 * seconds / taken.seconds:>7.1f} %{_ms(seconds):>13}"
    yield f"  the sums themselves take {_ms(taken.busy)}, hidden by computing or not"


def _inputs(setting: Setting) -> Iterator[str]:
    yield "rests on"
    wide = max(38, 2 + max(len(each.value) for each in setting.inputs))
    for each in setting.inputs:
        head = f"  {each.name:<16}{each.value:<{wide}}{each.how:<11}"
        yield from textwrap.wrap(
            each.source, COLUMNS, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
        ) or [head.rstrip()]


def _line(label: str, value: str) -> list[str]:
    return textwrap.wrap(
        value,
        COLUMNS,
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=" " * LABEL,
        break_on_hyphens=False,
    )


def _two(value: float) -> str:
    """Two digits of it.

    >>> _two(134.2), _two(9.81), _two(0.2649)
    ('130', '9.8', '0.26')
    """
    return f"{float(f'{value:.2g}'):g}"


def _ms(seconds: float) -> str:
    """
    >>> _ms(0.0241), _ms(0.133), _ms(1.5), _ms(0.0)
    ('24.1 ms', '133 ms', '1,500 ms', '0.0 ms')
    """
    value = 1000 * seconds
    return f"{value:,.0f} ms" if value >= 99.95 else f"{value:.1f} ms"
