"""The printed tables of a made-up result, letter by letter."""

from hvdtrain.reproduce.cells import Plan, gradual, sweep, table
from hvdtrain.reproduce.text import render

FULL = table(32)
PLAN = Plan((FULL[0], FULL[1], FULL[2], FULL[4], FULL[6]), sweep(32, (1, 8)))
RATES = {"gradual-32": 0.1, "gradual-256": 0.8, "none-256": 0.8, "unscaled-256": 0.1, "mpi-256": 0.8}
ERRORS = {
    "gradual-32": {0: 3.0, 1: 4.0, 2: 5.0},
    "gradual-256": {0: 3.1, 1: 4.1, 2: 4.9},
    "none-256": {0: 5.0, 1: 6.1, 2: 6.9},
    "unscaled-256": {0: 3.0, 1: 5.0, 2: 2.5},
    "mpi-256": {0: 3.1, 1: 4.1, 2: 4.9},
}

RULES = """\
error        top-1, %: the median of a run's last five epochs; mean ± standard deviation over the seeds
difference   to the baseline, seed by seed, likewise; the paper's is that of its means
paper        ResNet-50 on ImageNet, baseline 256 images; mean ± standard deviation of 5 runs
"""


def test_the_tables_and_verdicts() -> None:
    assert (
        render(PLAN, ERRORS, RATES)
        == RULES
        + """
tables 1 and 2a              kn   rate         error     difference   paper: kn   rate         error difference
baseline                     32    0.1   4.00 ± 1.00                        256    0.1  23.60 ± 0.12
gradual warm-up             256    0.8   4.03 ± 0.90   +0.03 ± 0.12        8192    3.2  23.74 ± 0.09      +0.14
no warm-up                  256    0.8   6.00 ± 0.95   +2.00 ± 0.10        8192    3.2  24.84 ± 0.37      +1.24
rate not scaled             256    0.1   3.50 ± 1.32   -0.50 ± 1.80        8192    0.1  41.67 ± 0.10     +18.07
gradual, two MPI ranks      256    0.8   4.03 ± 0.90   +0.03 ± 0.12           —

figure 1                     kn   rate         error     difference   paper: kn   rate         error difference
1 x                          32    0.1   4.00 ± 1.00                        256    0.1  23.60 ± 0.12
8 x                         256    0.8   4.03 ± 0.90   +0.03 ± 0.12        2048    0.8  23.49 ± 0.11      -0.11

error at kn = 256 minus that of gradual warm-up, mean ± 95 % interval over the seeds:
  no warm-up                 +1.97 ± 0.14   paper  +1.10   as in the paper
  rate not scaled            -0.53 ± 4.20   paper +17.93   not shown: the interval holds 0
  gradual, two MPI ranks     +0.00 ± 0.00   no difference expected: none shown
not surely worse than the baseline up to kn = 256, 8 x the baseline's; in the paper up to 8192, 32 x"""
    )


def test_one_seed_has_no_deviations_and_no_verdicts() -> None:
    one = {name: {0: errors[0]} for name, errors in ERRORS.items()} | {"mpi-256": {0: 3.0999}}  # no -0.00
    lines = render(PLAN, one, RATES).splitlines()
    assert "no warm-up                  256    0.8          5.00          +2.00        8192    3.2" in lines[7]
    assert lines[-4:] == [
        "  no warm-up                        +1.90   paper  +1.10   not shown: one seed",
        "  rate not scaled                   -0.10   paper +17.93   not shown: one seed",
        "  gradual, two MPI ranks            +0.00   no difference expected: none shown",
        "up to which minibatch the baseline's accuracy is kept, one seed cannot say",
    ]


def test_what_differs_where_nothing_should_is_said() -> None:
    text = render(PLAN, {**ERRORS, "mpi-256": {0: 3.2, 1: 4.2, 2: 5.0}}, RATES)
    assert "gradual, two MPI ranks     +0.10 ± 0.00   no difference expected: there is one" in text


def test_where_the_larger_minibatch_is_worse_the_limit_is_the_baseline() -> None:
    errors = {**ERRORS, "gradual-256": {0: 4.0, 1: 5.1, 2: 5.9}}
    text = render(PLAN, errors, RATES)
    assert "not surely worse than the baseline up to kn = 32, 1 x the baseline's" in text
    assert gradual(256) == PLAN.gradual
