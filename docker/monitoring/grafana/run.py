"""The dashboard of one run: how fast it is, how well it scales, and why not better."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable
from grafana_foundation_sdk.models.dashboard import VariableRefresh, VariableSort
from panels import (
    BLUE,
    CAUSES,
    DATASOURCE,
    GREEN,
    GREY,
    IMAGES_PER_SECOND,
    ORANGE,
    PARTS,
    PURPLE,
    SKY_BLUE,
    STEP_AGES,
    VERMILLION,
    Column,
    Panel,
    Query,
    board,
    filled_between,
    heat_map,
    lay_out,
    number,
    rows,
    state_timeline,
    time_series,
)


def dashboard() -> Dashboard:
    made = board("hvdtrain run", "hvdtrain-run", "One run: how fast it is, how well it scales, and why not better.")
    choice = QueryVariable("run").label("Run").datasource(DATASOURCE).query("label_values(hvdtrain_run_info, run)")
    choice.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    return lay_out(
        made.with_variable(choice),
        {
            "": now(),
            "Throughput and scaling efficiency": efficiency(),
            "Steps": steps(),
            "Workers": workers(),
            "Learning": learning(),
            "Communication": communication(),
            "Checkpoints and pauses": pauses(),
            "GPUs of the run's Slurm job": gpus(),
        },
    )


def of(series: str, labels: str = "") -> str:
    """Of the run that is chosen at the dashboard's head; `labels` as in `, part="input"`."""
    return f'{series}{{run="$run"{labels}}}'


def latest(gauge: str) -> str:
    """Without the labels of rank 0's target, which change when a run goes on elsewhere."""
    return f"max({of(gauge)})"


def rate(counter: str, labels: str = "") -> str:
    return f"rate({of(counter, labels)}[$__rate_interval])"


def now() -> list[Panel]:
    kind = "{{kind}}, baseline {{baseline}}, of {{baseline_workers}}"
    pace = f"max(deriv({of('hvdtrain_epoch')}[15m]))"
    return [
        number(
            "Throughput",
            "Training images per second of all workers. Evaluations and checkpoints count as time without any.",
            Query(f"sum({rate('hvdtrain_images_total')})"),
            unit=IMAGES_PER_SECOND,
            decimals=0,
        ),
        number(
            "Scaling efficiency",
            "Speed per worker compared with that of the baseline named here. Below 75 % an alert fires.",
            Query(of("hvdtrain_scaling_efficiency_ratio"), kind),
            unit="percentunit",
            decimals=1,
        ),
        number(
            "Largest cause of loss",
            "What costs the most efficiency now, and how much. Monitoring's README says what to do about each cause.",
            Query(f"topk(1, max by (cause) ({of('hvdtrain_scaling_loss_ratio')}))", "{{cause}}"),
            unit="percentunit",
            decimals=1,
            colours=CAUSES,
        ),
        number(
            "Workers",
            "How many answer Prometheus, and how many the run has.",
            Query(f"sum({of('up')})", "answer"),
            Query(latest("hvdtrain_world_size"), "in all"),
            unit="none",
        ),
        number(
            "Since the last step",
            "Grows during an evaluation. Beyond ten minutes the run counts as stuck.",
            Query(f"time() - {latest('hvdtrain_last_step_timestamp_seconds')}"),
            unit="s",
            decimals=0,
            steps=STEP_AGES,
        ),
        number(
            "Progress",
            "Epochs done, of all that were asked for.",
            Query(f"{latest('hvdtrain_epoch')} / {latest('hvdtrain_epochs')}"),
            unit="percentunit",
            decimals=1,
        ),
        number(
            "Time left",
            "At the pace of the last 15 minutes, with their evaluations and checkpoints.",
            Query(f"({latest('hvdtrain_epochs')} - {latest('hvdtrain_epoch')}) / {pace}"),
            unit="dtdurations",
        ),
        number(
            "Top-1",
            "Accuracy on the validation images at the last evaluation.",
            Query(latest("hvdtrain_top1_ratio")),
            unit="percentunit",
            decimals=2,
        ),
    ]


def efficiency() -> list[Panel]:
    perfect = f"{latest('hvdtrain_baseline_images_per_second')} * {latest('hvdtrain_world_size')}"
    interval = time_series(
        "Efficiency and its 95 % interval",
        "Steps that vary much make the interval wide. Two values within it are no different.",
        Query(latest("hvdtrain_scaling_efficiency_low_ratio"), "low"),
        Query(latest("hvdtrain_scaling_efficiency_ratio"), "efficiency"),
        Query(latest("hvdtrain_scaling_efficiency_high_ratio"), "high"),
        unit="percentunit",
        colours={"efficiency": GREEN},
    )
    return [
        time_series(
            "Throughput and perfect scaling",
            "Training images per second, and as many workers at the baseline's speed: the gap is the cost of scaling.",
            Query(f"sum({rate('hvdtrain_images_total')})", "throughput"),
            Query(perfect, "perfect scaling"),
            unit=IMAGES_PER_SECOND,
            colours={"throughput": GREEN, "perfect scaling": GREY},
            least=0,
        ),
        time_series(
            "Efficiency and what is lost to each cause",
            "Of the workers' time, 100 % in all. A cause below 0 costs less than it does in the baseline.",
            Query(latest("hvdtrain_scaling_efficiency_ratio"), "efficiency"),
            Query(f"max by (cause) ({of('hvdtrain_scaling_loss_ratio')})", "{{cause}}"),
            unit="percentunit",
            colours={"efficiency": GREEN, **CAUSES},
            stacked=True,
            most=1,
        ),
        filled_between(interval, "low", "high", GREEN),
        rows(
            "Configuration",
            "In short; config.yaml and environment.json in the run directory have all of it.",
            Query(of("hvdtrain_run_info")),
            Query(of("hvdtrain_bucket_bytes")),
            columns=[
                Column("model", "Model"),
                Column("precision", "Precision"),
                Column("world_size", "Workers"),
                Column("batch_size", "Images per worker"),
                Column("global_batch_size", "Images per step"),
                Column("Value #B", "Largest bucket", unit="bytes"),
                Column("slurm_job_id", "Slurm job"),
                Column("version", "Version"),
                Column("commit", "Commit"),
                Column("torch", "Torch"),
            ],
        ),
    ]


def steps() -> list[Panel]:
    def quantile(share: float, histogram: str) -> str:
        return f"histogram_quantile({share}, sum by (le) ({rate(f'{histogram}_bucket')}))"

    step, wait, exposed = (f"hvdtrain_{name}_seconds" for name in ("step", "input_wait", "exposed_communication"))
    return [
        time_series(
            "Step time",
            "The 99th percentile far above the median: single steps are held up. All rise together: all steps are.",
            Query(quantile(0.99, step), "99 %"),
            Query(quantile(0.9, step), "90 %"),
            Query(quantile(0.5, step), "median"),
            Query(f"sum({rate(f'{step}_sum')}) / sum({rate(f'{step}_count')})", "mean"),
            unit="s",
            colours={"99 %": VERMILLION, "90 %": ORANGE, "median": BLUE, "mean": GREY},
            least=0,
        ),
        time_series(
            "Parts of a step",
            "Where the time of a step goes, mean of all workers. Straggler: waiting for the last one, whatever held it "
            "up. Communication: what backward does not hide.",
            Query(
                f"sum by (part) ({rate('hvdtrain_step_part_seconds_total')})"
                f" / scalar(sum({rate('hvdtrain_steps_total')}))",
                "{{part}}",
            ),
            unit="s",
            colours=PARTS,
            stacked=True,
            least=0,
        ),
        time_series(
            "Input wait and exposed communication",
            "Of each step's last worker. The 99th percentile far above the median: they come in bursts.",
            Query(quantile(0.99, wait), "input, 99 %"),
            Query(quantile(0.5, wait), "input, median"),
            Query(quantile(0.99, exposed), "communication, 99 %"),
            Query(quantile(0.5, exposed), "communication, median"),
            unit="s",
            colours={"input, .*": ORANGE, "communication, .*": BLUE},
            least=0,
        ),
        time_series(
            "Images left out",
            "Share that cannot be decoded. Above 0.1 % an alert fires, beyond data.max_bad_ratio the run ends.",
            Query(f"sum({rate('hvdtrain_images_skipped_total')}) / sum({rate('hvdtrain_images_total')})", "left out"),
            unit="percentunit",
            colours={"left out": ORANGE},
            least=0,
        ),
    ]


def workers() -> list[Panel]:
    return [
        heat_map(
            "Lag of each rank",
            "How much later than the typical worker it is ready. A bright line is a slow worker, a band a slow host.",
            Query(f"max by (rank) ({of('hvdtrain_rank_lag_seconds')})", "{{rank}}"),
            unit="s",
        ),
        rows(
            "Slowest workers",
            "Those that the others wait for, and where they run.",
            Query(
                f"topk(8, max by (run, rank) ({of('hvdtrain_rank_lag_seconds')}))"
                f" * on (run, rank) group_left (host, device, device_name) {of('hvdtrain_worker_info')}"
            ),
            columns=[
                Column("rank", "Rank"),
                Column("host", "Host"),
                Column("device", "Device"),
                Column("device_name", "Kind"),
                Column("Value", "Lag", unit="s"),
            ],
            sorted_by="Lag",
        ),
        time_series(
            "Lag of the slowest rank",
            "Above a tenth of a step an alert fires.",
            Query(latest("hvdtrain_slowest_rank_lag_seconds"), "lag"),
            Query(f"0.1 * {latest('run:hvdtrain_step_seconds:mean5m')}", "a tenth of a step"),
            unit="s",
            colours={"lag": VERMILLION, "a tenth of a step": GREY},
            least=0,
        ),
        state_timeline(
            "Slowest rank",
            "One colour throughout: always the same worker. Many: chance, or images that are hard to decode.",
            Query(latest("hvdtrain_slowest_rank"), "slowest rank"),
            unit="none",
        ),
        time_series(
            "Workers that come and go",
            "How many an elastic run has, how many answer, and how often they have changed: in between nobody answers.",
            Query(latest("hvdtrain_world_size"), "in all"),
            Query(f"sum({of('up')})", "answer"),
            Query(latest("hvdtrain_resets"), "changes so far"),
            unit="none",
            colours={"in all": BLUE, "answer": SKY_BLUE, "changes so far": ORANGE},
            least=0,
        ),
        time_series(
            "Images of a step",
            "The minibatch kn. It stays as workers change wherever their number divides it; else the rate follows it.",
            Query(latest("hvdtrain_global_batch_images"), "images"),
            unit="none",
            colours={"images": BLUE},
            least=0,
        ),
    ]


def learning() -> list[Panel]:
    return [
        time_series(
            "Training loss",
            "Mean of all workers between two reports. A gap is a loss that is no number.",
            Query(latest("hvdtrain_loss"), "loss"),
            unit="none",
            colours={"loss": BLUE},
        ),
        time_series(
            "Top-1 accuracy",
            "On the validation images; also of the moving average of the weights if train.ema_decay keeps one.",
            Query(latest("hvdtrain_top1_ratio"), "weights"),
            Query(latest("hvdtrain_average_top1_ratio"), "moving average"),
            unit="percentunit",
            colours={"weights": BLUE, "moving average": PURPLE},
        ),
        time_series(
            "Learning rate",
            "Of the last step: the warm-up, the peak and the decay.",
            Query(latest("hvdtrain_learning_rate"), "learning rate"),
            unit="none",
            colours={"learning rate": BLUE},
            least=0,
        ),
        time_series(
            "Steps left out in half precision",
            "A few are usual with fp16, when the loss scale has grown; a steady stream is a run that diverges.",
            Query(f"60 * sum({rate('hvdtrain_steps_overflown_total')})", "left out"),
            unit="suffix:/min",
            colours={"left out": ORANGE},
            least=0,
        ),
    ]


def communication() -> list[Panel]:
    def per(amount: str, other: str) -> str:
        return f"avg({rate(amount)}) / avg({other})"

    step, exposed = rate("hvdtrain_steps_total"), rate("hvdtrain_step_part_seconds_total", ', part="communication"')
    wire = "hvdtrain_allreduce_wire_bytes_total"
    return [
        time_series(
            "Bytes of a step",
            "Gradients of a worker, and what a ring of k workers sends for them over each link: 2 (k - 1) / k of that.",
            Query(per("hvdtrain_allreduce_payload_bytes_total", step), "payload"),
            Query(per(wire, step), "on the wire"),
            unit="bytes",
            colours={"payload": SKY_BLUE, "on the wire": BLUE},
            least=0,
        ).span(8),
        time_series(
            "Bus bandwidth of a worker",
            "Between its bytes on the wire per second of any kind, and per second of exposed communication alone.",
            Query(f"avg({rate(wire)})", "at least"),
            Query(per(wire, exposed), "at most"),
            unit="binBps",
            colours={"at least": BLUE, "at most": SKY_BLUE},
            least=0,
        ).span(8),
        time_series(
            "Allreduces of a step",
            "One per gradient bucket. Smaller buckets (distributed.bucket_mib) overlap more, and cost latency.",
            Query(per("hvdtrain_allreduces_total", step), "allreduces"),
            Query(latest("hvdtrain_gradient_buckets"), "gradient buckets"),
            unit="none",
            colours={"allreduces": BLUE, "gradient buckets": GREY},
            least=0,
        ).span(8),
    ]


def pauses() -> list[Panel]:
    return [
        number(
            "Checkpoints",
            "Written since the run started, or last went on.",
            Query(f"sum({of('hvdtrain_checkpoints_total')})"),
            unit="none",
        ).span(6),
        number(
            "Time of a checkpoint",
            "Mean of all since the run started, or last went on.",
            Query(f"sum({of('hvdtrain_checkpoint_seconds_sum')}) / sum({of('hvdtrain_checkpoint_seconds_count')})"),
            unit="s",
        ).span(6),
        number(
            "Restarts",
            "How often the run was started before.",
            Query(latest("hvdtrain_restarts")),
            unit="none",
        ).span(6),
        number(
            "Age of the baseline",
            "Efficiency is measured against a speed so long ago: perhaps with another driver or other clocks.",
            Query(f"time() - {latest('hvdtrain_baseline_timestamp_seconds')}"),
            unit="s",
        ).span(6),
        time_series(
            "Time without training",
            "Share of the time that evaluations and checkpoints take. Efficiency leaves it out.",
            Query(f"sum by (reason) ({rate('hvdtrain_pause_seconds_total')})", "{{reason}}"),
            unit="percentunit",
            colours={"evaluation": SKY_BLUE, "checkpoint": PURPLE},
            stacked=True,
            least=0,
        ),
        time_series(
            "Age of the last checkpoint",
            "So much work is lost if the run is killed now. Above 2 hours an alert fires.",
            Query(f"time() - {latest('hvdtrain_last_checkpoint_timestamp_seconds')}", "age"),
            unit="s",
            colours={"age": PURPLE},
            least=0,
        ),
    ]


def gpus() -> list[Panel]:
    """From dcgm-exporter, whose label hpc_job is our slurm_job_id."""
    info = of("hvdtrain_run_info", ', slurm_job_id!=""')
    job = f'max by (hpc_job) (label_replace({info}, "hpc_job", "$1", "slurm_job_id", "(.+)"))'

    def panel(title: str, description: str, series: str, unit: str, most: float | None = None) -> Panel:
        query = Query(f"{series} * on (hpc_job) group_left () {job}", "{{Hostname}} GPU {{gpu}}")
        return time_series(title, description, query, unit=unit, least=0, most=most)

    return [
        panel(
            "GPU utilisation",
            "Share of the time in which any kernel runs. What is missing to 100 % the GPU waits.",
            "DCGM_FI_DEV_GPU_UTIL",
            "percent",
            most=100,
        ),
        panel(
            "Tensor cores active",
            "Share of the cycles. Near 0 with bf16 or fp16: the model's shapes keep them idle.",
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
            "percentunit",
            most=1,
        ),
        panel(
            "GPU memory in use",
            "What the GPU has beyond this is room for a larger data.batch_size.",
            "DCGM_FI_DEV_FB_USED",
            "mbytes",
        ),
        panel(
            "PCIe traffic to the GPU",
            "Images, and gradients where no NVLink carries them.",
            "DCGM_FI_PROF_PCIE_RX_BYTES",
            "binBps",
        ),
    ]
