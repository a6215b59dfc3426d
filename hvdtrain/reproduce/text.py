"""The results as text: ours beside the paper's, and what of the paper's ordering they show."""

from collections.abc import Mapping, Sequence

from hvdtrain.reproduce.cells import PAPERS_BASELINE, PAPERS_LIMIT, Plan, Published, Row
from hvdtrain.reproduce.results import Errors, Spread, accuracy_kept, difference, spread, verdict

RULES = f"""\
error        top-1, %: the median of a run's last five epochs; mean ± standard deviation over the seeds
difference   to the baseline, seed by seed, likewise; the paper's is that of its means
paper        ResNet-50 on ImageNet, baseline {PAPERS_BASELINE} images; mean ± standard deviation of 5 runs"""


def render(plan: Plan, errors: Errors, rates: Mapping[str, float]) -> str:
    """Both tables and the verdicts.

    Args:
        rates: cell's name -> the learning rate after warm-up.
    """
    blocks = [
        RULES,
        _table("tables 1 and 2a", plan.table, plan, errors, rates),
        _table("figure 1", plan.sweep, plan, errors, rates),
        _verdicts(plan, errors),
    ]
    return "\n\n".join(blocks)


def _table(title: str, rows: Sequence[Row], plan: Plan, errors: Errors, rates: Mapping[str, float]) -> str:
    head = f"{title:<24} {'kn':>6} {'rate':>6} {'error':>13} {'difference':>14}"
    lines = [f"{head}   {'paper: kn':>9} {'rate':>6} {'error':>13} {'difference':>10}"]
    papers_baseline = _papers_error(plan)
    for row in rows:
        cell = row.cell
        error = spread(list(errors[cell.name].values()))
        apart = "" if cell == plan.baseline else _signed(difference(errors, cell, plan.baseline))
        ours = f"{row.label:<24} {cell.kn:>6} {rates[cell.name]:>6.3g} {_plain(error):>13} {apart:>14}"
        lines.append(f"{ours}   {_published(row.paper, papers_baseline)}".rstrip())
    return "\n".join(lines)


def _published(paper: Published | None, baseline: float) -> str:
    if paper is None:
        return f"{'—':>9}"
    apart = "" if paper.kn == PAPERS_BASELINE else f"{paper.error - baseline:+.2f}"
    return f"{paper.kn:>9} {paper.rate:>6.3g} {f'{paper.error:.2f} ± {paper.std:.2f}':>13} {apart:>10}"


def _verdicts(plan: Plan, errors: Errors) -> str:
    reference = plan.table[1]
    lines = [f"error at kn = {plan.gradual.kn} minus that of {reference.label}, mean ± 95 % interval over the seeds:"]
    for row in plan.table[2:]:
        ours = difference(errors, row.cell, plan.gradual)
        at = f"  {row.label:<24} {_signed(ours, ours.interval):>14}"
        if row.paper is None or reference.paper is None:
            lines.append(f"{at}   no difference expected: {'there is one' if ours.sure else 'none shown'}")
        else:
            papers = row.paper.error - reference.paper.error
            lines.append(f"{at}   paper {papers:+6.2f}   {verdict(ours, papers)}")
    kept, base = accuracy_kept(errors, plan.sweep, plan.baseline), plan.baseline.kn
    if kept is None:
        lines.append("up to which minibatch the baseline's accuracy is kept, one seed cannot say")
    else:
        lines.append(
            f"not surely worse than the baseline up to kn = {kept}, {kept / base:g} x the baseline's; "
            f"in the paper up to {PAPERS_LIMIT}, {PAPERS_LIMIT / PAPERS_BASELINE:g} x"
        )
    return "\n".join(lines)


def _papers_error(plan: Plan) -> float:
    paper = plan.table[0].paper
    assert paper is not None, "the baseline is the paper's too"
    return paper.error


def _plain(value: Spread) -> str:
    return f"{value.mean:.2f}" if value.std is None else f"{value.mean:.2f} ± {value.std:.2f}"


def _signed(value: Spread, about: float | None = None) -> str:
    about = value.std if about is None else about
    mean = round(value.mean, 2) + 0.0  # no -0.00
    return f"{mean:+.2f}" if about is None else f"{mean:+.2f} ± {about:.2f}"
