"""hvdtrain reproduce goyal-mini: the paper's tables on warm-up and scaling, and its sweep of minibatches, in miniature.

folder/digits/       the images
folder/runs, logs/   each training run
folder/results.json  what was measured, with what, where
folder/figure1.png   error against the minibatch
folder/figure2.png   training loss against the epoch
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from hvdtrain.config.schema import Config
from hvdtrain.data import demo
from hvdtrain.errors import ConfigError, DataError
from hvdtrain.files import folder_whole, pretty_json, write_whole
from hvdtrain.log import logger
from hvdtrain.optim.schedule import scaled_rate
from hvdtrain.provenance import revision
from hvdtrain.reproduce import cells, figures, text
from hvdtrain.reproduce.cells import Cell, Plan
from hvdtrain.reproduce.record import record
from hvdtrain.reproduce.results import Errors, begin, losses_by_epoch, run_error
from hvdtrain.reproduce.runs import Run, alone_in, refuse_others, resolve, run_all

SEEDS, QUICK_SEEDS = "10-19", "10-11"
VALIDATION = (5, 6)  # of every six digits five validate: with few, errors come in steps too large to compare


def reproduce(folder: Path, *, seeds: Sequence[int], quick: bool, jobs: int) -> str:
    """Run what is not run yet, write results and figures; returns the tables to print.

    Args:
        quick: half the epochs and a coarser sweep.
        jobs: processes at a time.

    Raises:
        ConfigError: `folder` belongs to another process or to other settings.
        HvdtrainError: a run failed.
    """
    return carry_out(plan(quick=quick), folder, seeds=seeds, jobs=jobs)


def default_folder(*, quick: bool) -> Path:
    return Path("runs/goyal-mini-quick" if quick else "runs/goyal-mini")


def parse_seeds(given: str) -> tuple[int, ...]:
    """
    >>> parse_seeds("10-13"), parse_seeds("0,3,5"), parse_seeds("7")
    ((10, 11, 12, 13), (0, 3, 5), (7,))

    Raises:
        ConfigError: no such list, a range that falls, or a seed twice.
    """
    seeds: list[int] = []
    for part in given.split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not ends:
            raise ConfigError(f"--seeds {given}: expected 10-19, or 0,3,5")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if last < first:
            raise ConfigError(f"--seeds {given}: {part.strip()} falls; expected {last}-{first}")
        seeds += range(first, last + 1)
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise ConfigError(f"--seeds {given}: {twice[0]} stands twice")
    return tuple(seeds)


def plan(*, quick: bool) -> Plan:
    config = resolve([f"--config={cells.PRESET}"])
    base = config.optim.reference_batch
    if not quick:
        return Plan(cells.table(base), cells.sweep(base))
    return Plan(cells.table(base), cells.sweep(base, cells.QUICK_RATIOS), shorter(config))


def shorter(config: Config) -> tuple[str, ...]:
    """Options that halve a run, in the same proportions."""
    epochs = round(config.epochs / 2)
    factor = epochs / config.epochs
    decay = [epoch * factor for epoch in config.optim.decay_epochs]
    return (
        f"--epochs={epochs}",
        f"--optim.warmup_epochs={config.optim.warmup_epochs * factor}",
        f"--optim.decay_epochs={json.dumps(decay)}",
        f"--evaluation.first_epoch={max(0.0, config.evaluation.first_epoch - config.epochs + epochs)}",
    )


def carry_out(plan: Plan, folder: Path, *, seeds: Sequence[int], jobs: int) -> str:
    """As `reproduce`, of any plan."""
    with alone_in(folder) as lock:
        digits = folder / "digits"
        runs = {cell: {seed: run(plan, cell, seed, folder) for seed in seeds} for cell in plan.cells}
        # Seed by seed, so that what is there after an interruption can be compared; those of several processes last,
        # for which the others would have to wait.
        order = sorted(((seed, cell) for seed in seeds for cell in plan.cells), key=lambda each: each[1].ranks)
        ordered = [runs[cell][seed] for seed, cell in order]
        refuse_others(ordered)
        if not digits.exists():
            with folder_whole(digits) as temporary:
                demo.write(temporary, validation=VALIDATION)
        logger.info("%d runs of %d cells in %s, %d at a time", len(ordered), len(runs), folder, jobs)
        run_all(ordered, jobs=jobs, lock=lock, code=revision())
        return _report(plan, runs, folder)


def run(plan: Plan, cell: Cell, seed: int, folder: Path) -> Run:
    options = (
        f"--config={cells.PRESET}",
        *plan.options,
        f"--train.global_batch_size={cell.kn}",
        *cell.options,
        f"--seed={seed}",
        f"--data.dir={folder / 'digits'}",
        "--data.threads=1",
    )
    return Run(f"{cell.name}-seed{seed}", options, cell.ranks, folder)


def _report(plan: Plan, runs: Mapping[Cell, Mapping[int, Run]], folder: Path) -> str:
    config = resolve(next(iter(runs[plan.baseline].values())).options)
    errors = {
        cell.name: {seed: _error(run, cell, config.epochs) for seed, run in of_cell.items()}
        for cell, of_cell in runs.items()
    }
    code = sorted({line for of_cell in runs.values() for run in of_cell.values() for line in run.code})
    write_whole(folder / "results.json", pretty_json(record(plan, errors, config, code)))
    figures.error_by_minibatch(
        folder / "figure1.png", plan.sweep, errors, baseline=plan.baseline, model=config.model.name
    )

    def curves(cell: Cell) -> tuple[Cell, list[dict[int, float]]]:
        return cell, [losses_by_epoch(run.events) for run in runs[cell].values()]

    panels = {row.label: curves(row.cell) for row in plan.warmups}
    figures.loss_by_epoch(folder / "figure2.png", panels, curves(plan.baseline), model=config.model.name)
    written = ", ".join(str(folder / name) for name in ("results.json", "figure1.png", "figure2.png"))
    tables = text.render(plan, errors, rates(plan))
    return f"{title(config, plan, errors)}\n\n{tables}\n\nwritten      {written}"


def _error(run: Run, cell: Cell, epochs: float) -> float:
    """The run's error, after a look that it was the cell's."""
    events = run.events
    found = begin(events)["global_batch_size"], begin(events)["world_size"]
    if found != (cell.kn, cell.ranks):
        raise DataError(
            f"{run.folder}: trained with kn = {found[0]} on {found[1]} workers, expected {cell.kn} on {cell.ranks}",
            remedy=f"rm -r {shlex.quote(str(run.folder))} and run again",
        )
    return run_error(events, epochs=epochs)


def title(config: Config, plan: Plan, errors: Errors) -> str:
    seeds = list(errors[plan.baseline.name])
    return (
        f"Goyal et al. 2017 in miniature: {config.model.name} on digits of {config.data.image_size} pixels, "
        f"{config.epochs:g} epochs, n = {config.data.batch_size}\n"
        f"seeds {', '.join(map(str, seeds))}"
    )


def rates(plan: Plan) -> dict[str, float]:
    """Cell's name -> its learning rate after warm-up."""
    optim = {cell: resolve([f"--config={cells.PRESET}", *plan.options, *cell.options]).optim for cell in plan.cells}
    return {
        cell.name: scaled_rate(its.base_lr, global_batch=cell.kn, reference_batch=its.reference_batch, rule=its.scaling)
        for cell, its in optim.items()
    }
