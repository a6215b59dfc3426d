"""The report as one HTML file that needs nothing else: figures inside, no links, no scripts, fit for printing."""

import base64
import html
from collections.abc import Iterable, Sequence

from hvdtrain.log import duration
from hvdtrain.report import changes, compare, plots, text
from hvdtrain.report.causes import Diagnosis, Loss
from hvdtrain.report.palette import LOOKS
from hvdtrain.report.proof import proof
from hvdtrain.report.scaling import Scaling
from hvdtrain.report.study import Study
from hvdtrain.report.timeline import Timeline
from hvdtrain.report.units import milliseconds, percent, plural, tenths

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h3 { font-size: 1.05rem; margin-bottom: .2rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .9rem .15rem 0; text-align: right; vertical-align: top; white-space: pre; }
th:first-child, td:first-child, .words td { text-align: left; }
.words th { text-align: left; font-weight: 600; } .words td { white-space: normal; overflow-wrap: anywhere; }
thead th { border-bottom: 1px solid #999; font-weight: 600; } tbody th { font-weight: 400; }
figure { margin: 1.2rem 0; } img { width: 100%; height: auto; } figcaption { color: #555; }
.mark { display: inline-block; width: .8em; height: .8em; margin-right: .5em; }
ul { margin: .2rem 0 .8rem; padding-left: 1.3rem; } p { margin: .2rem 0; }
.wide { overflow-x: auto; }
@page { size: A4; margin: 14mm; }
@media print {
  body { font-size: 10pt; margin: 0; max-width: none; padding: 0; }
  figure, table, .reason { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .sheet + .sheet { break-before: page; }
}
"""


class Html(str):
    """Text that is markup already; any other is escaped where it comes in."""

    __slots__ = ()


def page(studies: Sequence[Study], scaling: Scaling | None = None) -> str:
    """The whole file: several runs side by side, each by itself, and the scaling proof on a sheet of its own."""
    names = [study.run.name for study in studies] or ["scaling proof"]
    title = f"{', '.join(names)}: hvdtrain report"
    sheets = []
    if len(studies) > 1:
        sheets.append(_section("Side by side", _beside(studies), *_overlaid(studies)))
    for study in studies:
        alone = len(studies) == 1
        sheets.append(_section(study.run.name, *_words(study), *(_overlaid([study]) if alone else ()), *_own(study)))
    if scaling:
        sheets.append(_proof(scaling))
    safe = Html("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    head = _join(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{safe}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        _tag("title", title),
        Html(f"<style>{STYLE}</style>"),
    )
    body = _join(_tag("h1", "hvdtrain report"), *sheets)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _words(study: Study) -> Iterable[Html]:
    yield _facts(text.facts(study))
    if study.sizes:
        yield _table([changes.NAME, *changes.HEAD], changes.rows(study.sizes))
    yield _losses(study)
    if study.diagnosis.losses:
        yield _tag("h3", "Why not better")
    yield _reasons(study.diagnosis)
    yield _idle(study.diagnosis)
    if study.timeline:
        yield _timeline(study.timeline)
    if study.diagnosis.notes:
        yield _join(_tag("h3", "Notes"), _list(study.diagnosis.notes))


def _losses(study: Study) -> Html:
    rows = [
        [Html(_mark(name) + html.escape(label)), f"{tenths(share)} %", milliseconds(step), text.signed(whole)]
        for name, label, share, step, whole in text.shares(study)
    ]
    account = study.account
    head = [f"of a step of {milliseconds(account.step_seconds)}", "share", "each step", "all steps"] if account else []
    return _table(head, rows) if rows else Html("")


def _mark(cause: str) -> Html:
    return Html(f'<span class="mark" style="background: {LOOKS[cause].colour}"></span>')


def _reasons(diagnosis: Diagnosis) -> Html:
    worth_it = [loss for loss in diagnosis.losses if loss.evidence]
    return _join(*(_reason(place, loss) for place, loss in enumerate(worth_it, 1)))


def _reason(place: int, loss: Loss) -> Html:
    inner = _join(
        _tag("h3", f"{place}. {text.title(loss)}"),
        _tag("p", f"{'; '.join(loss.evidence)}."),
        _join(_tag("p", "Try:"), _list(loss.advice)) if loss.advice else "",
    )
    return Html(f'<div class="reason">{inner}</div>')


def _idle(diagnosis: Diagnosis) -> Html:
    if not diagnosis.idle:
        return Html("")
    rows = []
    for each in diagnosis.idle:
        pause = each.pause
        rows.append([pause.reason, f"{pause.times:,}", duration(pause.seconds), f"{tenths(each.share)} %", each.advice])
    rows = rows if any(row[-1] for row in rows) else [row[:-1] for row in rows]
    return _table(["besides training", "times", "in all", "of the run", ""][: len(rows[0])], rows)


def _timeline(timeline: Timeline) -> Html:
    rows = [
        [each.name, f"{each.sums:,}", *map(milliseconds, (each.negotiation, each.queue, each.ring, each.longest_ring))]
        for each in timeline.buckets
    ]
    last = [[f"rank {rank}", f"{times:,}", percent(times / timeline.told)] for rank, times in timeline.last.items()]
    return _join(
        _tag("h3", f"Horovod's timeline, {plural(timeline.sums, 'sum')}{'' if timeline.whole else ', breaks off'}"),
        _table(["bucket", "sums", "negotiation", "queue", "ring", "longest ring"], rows),
        _table(["ready last", "times", "of those known"], last) if last else "",
    )


def _beside(studies: Sequence[Study]) -> Html:
    rows = [[name, *values] for name, values in compare.rows(studies)]
    return Html(f'<div class="wide">{_table(["run", *(study.run.name for study in studies)], rows)}</div>')


def _overlaid(studies: Sequence[Study]) -> Iterable[Html]:
    if any(study.run.windows for study in studies):
        yield _figure(plots.training(studies), "Training: loss, top-1 accuracy and learning rate.")
    if any(study.account for study in studies):
        yield _figure(plots.throughput(studies), "Throughput, training alone counted.")


def _own(study: Study) -> Iterable[Html]:
    account = study.account
    if account and account.parts:
        what = "Scaling efficiency, and what was lost to what." if account.efficiency else "Where the steps' time went."
        yield _figure(plots.losses(study), what)
    if any(window.ranks and len(window.ranks["lag"]) > 1 for window in study.run.windows):
        yield _figure(plots.lags(study), "How much later than the typical rank each was ready.")


def _proof(scaling: Scaling) -> Html:
    """One page that stands for itself."""
    rows = [text.point(point) for point in scaling.points]
    return _section(
        f"Scaling of {scaling.model or 'training'}",
        _facts(text.scaling_facts(scaling)),
        _figure(proof(scaling), "Throughput, and weak scaling efficiency with its 95 % interval, over the workers."),
        _table(["workers k", "images/s", "E", "95 % interval", "from"], rows),
        _tag("p", text.verdict(scaling)),
        _tag("p", "Intervals are Student's, over the rounds; of a run over its reports."),
    )


def _section(title: str, *content: str) -> Html:
    return Html(f'<section class="sheet">\n{_join(_tag("h2", title), *content)}\n</section>')


def _facts(facts: Iterable[tuple[str, str]]) -> Html:
    rows = _join(*(Html(f"<tr>{_tag('th', name)}{_tag('td', value)}</tr>") for name, value in facts))
    return Html(f'<table class="words">{rows}</table>')


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    top = _join(*(_tag("th", name) for name in head))
    lines = _join(*(Html(f"<tr>{_join(*(_tag('td', cell) for cell in row))}</tr>") for row in rows))
    return Html(f"<table><thead><tr>{top}</tr></thead><tbody>\n{lines}\n</tbody></table>")


def _list(items: Iterable[str]) -> Html:
    return _tag("ul", _join(*(_tag("li", item) for item in items)))


def _figure(png: bytes, caption: str) -> Html:
    data = base64.b64encode(png).decode()
    shown = html.escape(caption)
    return Html(
        f'<figure><img alt="{shown}" src="data:image/png;base64,{data}"><figcaption>{shown}</figcaption></figure>'
    )


def _tag(name: str, content: str) -> Html:
    return Html(f"<{name}>{_safe(content)}</{name}>")


def _join(*pieces: str) -> Html:
    return Html("\n".join(_safe(piece) for piece in pieces if piece))


def _safe(content: str) -> str:
    return content if isinstance(content, Html) else html.escape(content)
