"""The dashboard of all runs: which of them needs a look."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import (
    CAUSES,
    IMAGES_PER_SECOND,
    ORANGE,
    VERMILLION,
    Column,
    Panel,
    Query,
    board,
    lay_out,
    number,
    rows,
    state_timeline,
    time_series,
)

FIRING = 'ALERTS{alertstate="firing", alertname=~"Hvdtrain.+"}'
FIRING_BY_RUN = f"count by (run) ({FIRING}) or 0 * run:up:sum"
LARGEST = "run_cause:hvdtrain_scaling_loss_ratio:largest"
THROUGHPUT = "run:hvdtrain_images:rate1m"
EFFICIENCY = "max by (run) (hvdtrain_scaling_efficiency_ratio)"
STEP_AGE = "run:hvdtrain_last_step_age_seconds:min"


def dashboard() -> Dashboard:
    made = board("hvdtrain fleet", "hvdtrain-fleet", "All runs: which of them needs a look.")
    return lay_out(made, {"": [*sums(), all_runs()], "Over time": over_time()})


def sums() -> list[Panel]:
    return [
        number("Runs", "Runs with a worker that answers.", Query("count(run:up:sum > 0)"), unit="none").span(6),
        number("Workers", "Workers that answer, of all runs.", Query("sum(run:up:sum)"), unit="none").span(6),
        number(
            "Throughput",
            "Training images per second of all runs together.",
            Query(f"sum({THROUGHPUT})"),
            unit=IMAGES_PER_SECOND,
            decimals=0,
        ).span(6),
        number(
            "Alerts",
            "How many fire. The table below says for which runs.",
            Query(f"count({FIRING}) or vector(0)"),
            unit="none",
            steps={1: VERMILLION},
        ).span(6),
    ]


def all_runs() -> Panel:
    table = rows(
        "All runs",
        "A run's name leads to its dashboard. Those with alerts come first.",
        Query("max by (run, model, precision, world_size, slurm_job_id) (hvdtrain_run_info)"),
        Query(THROUGHPUT),
        Query(EFFICIENCY),
        Query(LARGEST),
        Query(STEP_AGE),
        Query("max by (run) (hvdtrain_epoch) / on (run) max by (run) (hvdtrain_epochs)"),
        Query(FIRING_BY_RUN),
        columns=[
            Column("run", "Run", link="/d/hvdtrain-run?${datasource:queryparam}&var-run=${__value.text}"),
            Column("model", "Model"),
            Column("precision", "Precision"),
            Column("world_size", "Workers"),
            Column("slurm_job_id", "Slurm job"),
            Column("Value #B", "Throughput", unit=IMAGES_PER_SECOND),
            Column("Value #C", "Efficiency", unit="percentunit"),
            Column("cause", "Largest cause of loss"),
            Column("Value #D", "Lost to it", unit="percentunit"),
            Column("Value #E", "Since the last step", unit="s"),
            Column("Value #F", "Progress", unit="percentunit"),
            Column("Value #G", "Alerts", unit="none"),
        ],
        sorted_by="Alerts",
    )
    return table.height(10).span(24)


def over_time() -> list[Panel]:
    return [
        time_series(
            "Throughput by run",
            "Training images per second. At 0 a run evaluates, writes a checkpoint, or is stuck.",
            Query(THROUGHPUT, "{{run}}"),
            unit=IMAGES_PER_SECOND,
            least=0,
        ),
        time_series(
            "Scaling efficiency by run",
            "Each against its own baseline. Below 75 % for ten minutes an alert fires.",
            Query(EFFICIENCY, "{{run}}"),
            unit="percentunit",
        ),
        time_series(
            "Largest loss by run",
            "In the colour of its cause. One colour for all runs: look at what they share, the network or the storage.",
            Query(LARGEST, "{{run}}: {{cause}}"),
            unit="percentunit",
            colours={f".*: {cause}": colour for cause, colour in CAUSES.items()},
        ),
        time_series(
            "Workers lost by cause",
            "How many workers' work the largest loss of each run amounts to, over all runs: what to mend first.",
            Query(
                f"sum by (cause) ({LARGEST} * on (run) group_left () max by (run) (hvdtrain_world_size))", "{{cause}}"
            ),
            unit="none",
            colours=CAUSES,
            stacked=True,
        ),
        time_series(
            "Since the last step by run",
            "Teeth are evaluations. A line that climbs beyond ten minutes is a run that is stuck.",
            Query(STEP_AGE, "{{run}}"),
            unit="s",
            least=0,
        ),
        state_timeline(
            "Alerts by run",
            "How many fire at a time.",
            Query(FIRING_BY_RUN, "{{run}}"),
            unit="none",
            steps={1: ORANGE, 2: VERMILLION},
        ),
    ]
