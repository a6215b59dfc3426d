"""Fit the planner's constants to published series again, as hvdtrain/plan/constants.csv has them: a minute or two.

    python benchmarks/planner.py > hvdtrain/plan/constants.csv

Once to all series that count, and for each of these to all the others.
"""

import sys

from hvdtrain.plan.calibrate import fit
from hvdtrain.plan.constants import lines
from hvdtrain.plan.series import used


def main() -> None:
    series = used()
    best = fit(series, rounds=40)
    found = {"": best}
    for i, left_out in enumerate(series, 1):
        print(f"{i} of {len(series)}: {left_out.name}", file=sys.stderr, flush=True)
        found[left_out.name] = fit([each for each in series if each is not left_out], best)
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
