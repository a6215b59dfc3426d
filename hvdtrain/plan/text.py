"""The answers in words, for a terminal of 100 columns."""

import textwrap
from collections.abc import Iterator, Sequence

from hvdtrain.log import duration
from hvdtrain.plan import residuals
from hvdtrain.plan.capacity import RECIPE_LIMIT, Deadline, Prediction
from hvdtrain.plan.fit import Fit
from hvdtrain.plan.series import Series, everything
from hvdtrain.plan.setting import Ask, Setting

COLUMNS = 100
LABEL = 13
ADVICE = {
    "computing": "nothing else costs as much as 2 % of a step; a faster device or less precision would help",
    "communication": "a larger --batch, --wire fp16, or a faster --link would hide it better",
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
    head = _line("deadline", f"{found.meets.workers:,} workers are the fewest that are done within {wanted}")
    return "\n".join([*head, answer(ask, setting, found.meets)])


def curve(setting: Setting, found: Sequence[Prediction]) -> str:
    """A row for each number of workers."""
    money = setting.price is not None
    head = f"  {'workers':>7}{'images/s':>12}{'step':>11}{'E_w':>8}{'E_s':>8}{'80 % interval':>17}{'to the end':>13}"
    lines = [head + (f"{'cost':>12}" if money else "") + "   limited by"]
    for each in found:
        strong = f"{100 * (each.weak if each.strong is None else each.strong):.1f} %"
        interval = f"{100 * each.low:.0f} to {100 * each.high:.0f} %" if each.workers > 1 else "by definition"
        row = f"  {each.workers:>7,}{each.images_per_second:>12,.0f}{_ms(each.step.seconds):>11}"
        row += f"{100 * each.weak:>6.1f} %{strong:>8}{interval:>17}{duration(3600 * each.hours):>13}"
        lines.append(row + (f"{each.cost:>12,.0f}" if each.cost is not None else "") + f"   {each.limit}")
    return "\n".join(lines)


def fitted(fit: Fit) -> str:
    lines = [
        ("hop", f"{1e6 * fit.alpha_seconds:.3g} ± {1e6 * fit.alpha_error:.2g} µs"),
        ("bandwidth", f"{fit.bytes_per_second / 1e9:.3g} ± {fit.bytes_per_second_error / 1e9:.2g} GB/s of each worker"),
        ("jitter", f"{100 * fit.jitter:.0f} % of a sum, 1 standard deviation"),
        ("distance", f"{100 * fit.residual:.0f} % from measured to fitted, typically"),
        ("from", f"{fit.sums} sums of up to {fit.workers} workers; {fit.hardware}; {fit.date}"),
    ]
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
    lines += ["", *_summary(errors), "", "not counted, and why"]
    lines += [line for each in everything() if not each.used for line in _excluded(each)]
    return "\n".join(lines)


def _summary(errors: dict[str, float]) -> Iterator[str]:
    large = [name for name, error in errors.items() if error > 0.1]
    middle = sorted(errors.values())[len(errors) // 2]
    yield f"{len(errors)} series; error of efficiency, each series left out of the fit that predicts it:"
    yield f"  mean {100 * residuals.mean():.1f} %, median {100 * middle:.1f} %; above 10 %: {len(large)} series"
    yield from textwrap.wrap(", ".join(large), COLUMNS, initial_indent="  ", subsequent_indent="  ")


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
    yield from _line("throughput", f"{found.images_per_second:,.0f} images/s, a step of {_ms(found.step.seconds)}")
    base = (
        "by definition" if found.workers == 1 else f"{100 * found.low:.0f} to {100 * found.high:.0f} %, 80 % interval"
    )
    if found.strong is None:
        weak = f"E_w = {100 * found.weak:.1f} % ({base}) at n constant, of one worker; E_s the same, by micro-batches"
    else:
        weak = (
            f"E_s = {100 * found.strong:.1f} % ({base}) at kn constant, of one worker; E_w = {100 * found.weak:.1f} %"
        )
    yield from _line("efficiency", weak)
    end = f"{duration(3600 * found.hours)} of training: {setting.epochs:g} epochs of {setting.images:,} images"
    if found.cost is not None:
        end += f"; costs {found.cost:,.0f}, at {setting.price:g} for an hour of each"
    yield from _line("to the end", f"{end}, without evaluation and checkpoints")
    yield from _line("limited by", f"{found.limit}: {ADVICE[found.limit]}")
    if found.batch < setting.batch:
        alike = f"at n = {found.batch} a worker is taken to compute as many images/s as at n = {setting.batch}"
        yield from _line("assumed", f"{alike}; fewer are slower: measure it, or say a smaller --batch")
    if found.minibatch > RECIPE_LIMIT:
        yield from _line(
            "accuracy",
            f"kn is above {RECIPE_LIMIT:,}, up to which the recipe keeps its accuracy (Goyal et al. 2017, figure 1)",
        )


def _parts(found: Prediction) -> Iterator[str]:
    taken = found.step
    yield f"{'of a step of ' + _ms(taken.seconds):<34}{'share':>9}{'each step':>13}"
    parts = [
        ("computing", taken.compute),
        ("communication, exposed", taken.communication),
        ("stragglers", taken.straggler),
        ("input", taken.input),
    ]
    for name, seconds in parts:
        yield f"  {name:<32}{100 * seconds / taken.seconds:>7.1f} %{_ms(seconds):>13}"
    yield f"  the sums themselves take {_ms(taken.busy)}, hidden by computing or not"


def _inputs(setting: Setting) -> Iterator[str]:
    yield "rests on"
    for each in setting.inputs:
        head = f"  {each.name:<16}{each.value:<38}{each.how:<11}"
        yield from textwrap.wrap(
            each.source, COLUMNS, initial_indent=head, subsequent_indent=" " * 67, break_on_hyphens=False
        ) or [head.rstrip()]


def _line(label: str, value: str) -> list[str]:
    return textwrap.wrap(
        value,
        COLUMNS,
        initial_indent=f"{label:<{LABEL}}",
        subsequent_indent=" " * LABEL,
        break_on_hyphens=False,
    )


def _ms(seconds: float) -> str:
    """
    >>> _ms(0.0241), _ms(0.133), _ms(1.5), _ms(0.0)
    ('24.1 ms', '133 ms', '1,500 ms', '0.0 ms')
    """
    value = 1000 * seconds
    return f"{value:,.0f} ms" if value >= 99.95 else f"{value:.1f} ms"
