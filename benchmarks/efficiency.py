"""The live efficiency against that of `hvdtrain bench scaling`: `python benchmarks/efficiency.py --help`.

In every round, in turn: a run of two workers, whose own efficiency a real Prometheus scrapes; and a round of the bench,
a run of one worker and a run of two. What is compared is the mean of each over the rounds with its 95 % interval. The
live number has its baseline from the first seconds of the same run, the bench from a run of its own: two ways to one.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from hvdtrain.bench import trials
from hvdtrain.config.load import from_file
from hvdtrain.config.schema import Config
from hvdtrain.data import demo
from hvdtrain.distributed import launch
from hvdtrain.metrics.efficiency import Mean, mean
from hvdtrain.provenance import hardware, revision

SERIES = "hvdtrain_scaling_efficiency_ratio"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the live efficiency with that of the bench.")
    parser.add_argument("--config", default="demo", help="preset or file; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200, help="of each run; default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    live, bench = [], []
    with tempfile.TemporaryDirectory() as name, prometheus(Path(name)) as ask:
        folder = Path(name)
        demo.write(folder / "digits")
        config = settings(options.config, folder)
        for number in range(options.rounds):
            for turn in ("live", "bench") if number % 2 == 0 else ("bench", "live"):
                if turn == "live":
                    live.append(live_efficiency(config, folder, f"live-{number}", ask, threads, options.steps))
                else:
                    one, two = (
                        trials.run(config, folder / "bench", trials.Trial(k), threads=threads, steps=options.steps)
                        for k in (1, 2)
                    )
                    bench.append(two.images_per_second / 2 / one.images_per_second)
            print(f"round {number + 1}: live {live[-1]:.3f}, bench {bench[-1]:.3f}", file=sys.stderr, flush=True)
    report(live, bench, options)


def settings(name: str, folder: Path) -> Config:
    from hvdtrain.config.load import Parser, add_options, from_options

    parser = Parser()
    source = add_options(parser)
    given = [f"--config={name}", f"--data.dir={folder / 'digits'}", f"--metrics.baselines_dir={folder / 'baselines'}"]
    return from_options(source, parser.parse_args([*given, f"--run.dir={folder / 'runs'}"]))


def live_efficiency(config: Config, folder: Path, run: str, ask: Any, threads: int, steps: int) -> float:
    """What Prometheus had of it at its end."""
    chosen = trials.only_steps(config, folder / "runs" / run, threads=threads, steps=steps)
    chosen["metrics"]["baseline"] = "measured"
    file = folder / f"{run}.yaml"
    file.write_text(yaml.safe_dump(chosen))
    assert from_file(file).run_dir == folder / "runs" / run
    command = launch.command(2, ["train", "--config", str(file)])
    subprocess.run(command, env=launch.variables(threads), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    (found,) = ask(f'last_over_time({SERIES}{{run="{run}"}}[1h])')
    return float(found["value"][1])


@contextmanager
def prometheus(folder: Path) -> Iterator[Any]:
    """A real one that scrapes every run in `folder`/runs; what is yielded asks it."""
    program = shutil.which("prometheus")
    assert program, "no prometheus on PATH: docker/test-setup.sh"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    targets = {"files": [f"{folder}/runs/.targets/*.json"], "refresh_interval": "1s"}
    job = {"job_name": "hvdtrain", "honor_labels": True, "file_sd_configs": [targets]}
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump({"global": {"scrape_interval": "250ms"}, "scrape_configs": [job]}))
    (folder / "runs" / ".targets").mkdir(parents=True)
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with subprocess.Popen(
        [program, *arguments, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    ) as server:

        def ask(query: str) -> Any:
            address = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)["data"]["result"]

        try:
            while True:  # until it listens
                assert server.poll() is None, f"{program} does not start with {file}"
                with suppress(OSError):
                    ask("up")
                    break
                time.sleep(0.1)
            yield ask
        finally:
            server.terminate()


def report(live: list[float], bench: list[float], options: argparse.Namespace) -> None:
    found = {"live": mean(live), "bench": mean(bench)}
    print(f"\n{options.config}, two workers against one, {options.rounds} rounds\n")
    print(f"{'':8}{'mean':>8}{'95 % interval':>18}{'min':>8}{'max':>8}")
    for name, values in (("live", live), ("bench", bench)):
        low, high = interval(found[name])
        print(f"{name:8}{found[name].value:>8.3f}{f'{low:.3f}-{high:.3f}':>18}{min(values):>8.3f}{max(values):>8.3f}")
    (low, high), (others_low, others_high) = interval(found["live"]), interval(found["bench"])
    overlap = low <= others_high and others_low <= high
    print(f"\nthe intervals {'overlap' if overlap else 'do not overlap'}")
    if options.json:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "code": revision(),
            "hardware": hardware(),
            "options": {key: str(value) for key, value in vars(options).items() if key != "json"},
            "live": live,
            "bench": bench,
            "overlap": overlap,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def interval(found: Mean) -> tuple[float, float]:
    return found.value - found.half_width, found.value + found.half_width


if __name__ == "__main__":
    main()
