"""What the planner was to reach of the published measurements, and whether it does."""

from dataclasses import dataclass

from hvdtrain.plan import residuals

MEAN_ERROR = 0.05  # of efficiency, every series weighing the same
LARGEST_ERROR = 0.1  # of any series
PAPER = "goyal-r50"
PAPER_LONGER, PAPER_WITHIN = 0.12, 0.03  # Goyal et al. 2017, section 4.1: an iteration on 352 GPUs against one on 8


@dataclass(frozen=True)
class Goal:
    """What predictions are to reach against published series, in words."""

    what: str
    reached: str
    wanted: str
    holds: bool


def goals() -> list[Goal]:
    errors = residuals.of_series()
    mean, large = residuals.mean(), sum(error > LARGEST_ERROR for error in errors.values())
    longer = papers_iteration()
    return [
        Goal("mean error of efficiency", f"{mean:.1%}", f"at most {MEAN_ERROR:.0%}", mean <= MEAN_ERROR),
        Goal(f"series off by more than {LARGEST_ERROR:.0%}", f"{large} of {len(errors)}", "none", not large),
        Goal(
            "the paper's iteration, 8 to 352 GPUs",
            f"{longer:+.1%}",
            f"{PAPER_LONGER:+.0%}, within {100 * PAPER_WITHIN:.0f} points",
            abs(longer - PAPER_LONGER) <= PAPER_WITHIN,
        ),
    ]


def papers_iteration() -> float:
    """How much longer it is predicted to take on 352 GPUs than on 8, as a fraction."""
    (row,) = (row for row in residuals.rows() if row.series.name == PAPER and row.workers == 352)
    return 1 / row.predicted - 1
