"""hvdtrain reproduce goyal-mini: real runs of a small plan, interrupted and gone on with; and its record."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hvdtrain.errors import ConfigError, DataError
from hvdtrain.files import pretty_json
from hvdtrain.reproduce.cells import Cell, Plan, Published, Row, gradual
from hvdtrain.reproduce.goyal_mini import carry_out, default_folder, parse_seeds, run
from hvdtrain.reproduce.record import record
from hvdtrain.reproduce.results import read_events
from hvdtrain.reproduce.runs import Run, resolve

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 600
LARGE, MPI = gradual(64), Cell("mpi-64", 64, ranks=2)
PAPER = Published(8192, 3.2, 24.84, 0.37, "table 1")
SMALL = Plan(
    (Row("baseline", gradual(32), PAPER), Row("gradual", LARGE, PAPER), Row("two ranks", MPI, None)),
    (Row("1 x", gradual(32), PAPER), Row("2 x", LARGE, PAPER)),
    (
        *("--epochs=2", "--optim.warmup_epochs=0.5", "--optim.decay_epochs=[1]", "--evaluation.first_epoch=0"),
        *("--checkpoint.every_epochs=0.5", "--evaluation.batch_size=256"),
    ),
)
NAMES = ["gradual-32-seed7", "gradual-64-seed7", "mpi-64-seed7"]


def start(folder: Path, *, jobs: int) -> subprocess.Popen[str]:
    program = (
        "from pathlib import Path, PosixPath\n"
        "from hvdtrain import log\n"
        "from hvdtrain.reproduce.cells import Cell, Plan, Published, Row\n"
        "from hvdtrain.reproduce.goyal_mini import carry_out\n"
        f"log.configure(0)\nprint(carry_out({SMALL!r}, {folder!r}, seeds=(7,), jobs={jobs}))"
    )
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events(folder: Path, name: str) -> list[str]:
    return [event["event"] for event in read_events(folder / "runs" / name / "events.jsonl")]


def finished(folder: Path) -> list[str]:
    return [name for name in NAMES if "end" in events(folder, name)]


@pytest.mark.multiproc
def test_what_is_interrupted_goes_on_and_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    process = start(tmp_path, jobs=1)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (finished(tmp_path) == NAMES[:1] and "checkpoint" in events(tmp_path, NAMES[1])):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no second run"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == -signal.SIGINT  # KeyboardInterrupt, which the command line turns into 130
    assert "gradual-64-seed7 is interrupted; the same command goes on with it" in said
    assert finished(tmp_path) == NAMES[:1]
    assert not (tmp_path / "results.json").exists()
    assert not (tmp_path / "runs" / NAMES[2]).exists()  # one at a time, and what needs two cores last
    first = (tmp_path / "runs" / NAMES[0] / "events.jsonl").read_bytes()

    process = start(tmp_path, jobs=2)
    text, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, said
    assert "2 of 3 runs, about 1 min left" in said
    assert finished(tmp_path) == NAMES
    assert (tmp_path / "runs" / NAMES[0] / "events.jsonl").read_bytes() == first
    assert events(tmp_path, NAMES[1]).count("resume") == 1

    results = json.loads((tmp_path / "results.json").read_text())
    measured = {name: cell["errors"]["7"] for name, cell in results["cells"].items()}
    assert set(measured) == {"gradual-32", "gradual-64", "mpi-64"}
    assert all(0 < error <= 100 for error in measured.values())
    assert f"baseline                     32    0.1 {measured['gradual-32']:>13.2f}" in text
    assert text.endswith(f"{tmp_path}/results.json, {tmp_path}/figure1.png, {tmp_path}/figure2.png\n")
    assert (tmp_path / "figure1.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")
    assert carry_out(SMALL, tmp_path, seeds=(7,), jobs=1) == text.removesuffix("\n")


def test_a_run_of_another_minibatch_than_its_cells_is_no_result(tmp_path: Path) -> None:
    one = Plan(SMALL.table[:2], SMALL.sweep, SMALL.options)
    for cell in one.cells:
        finished_run(run(one, cell, 7, tmp_path), kn=32)
    (tmp_path / "digits").mkdir()
    with pytest.raises(DataError, match=r"gradual-64-seed7: trained with kn = 32 on 1 workers, expected 64 on 1 → rm"):
        carry_out(one, tmp_path, seeds=(7,), jobs=1)


def finished_run(run: Run, *, kn: int) -> None:
    run.folder.mkdir(parents=True)
    start = {"event": "start", "step": 0, "world_size": 1, "global_batch_size": kn, "images_per_epoch": 600}
    evaluations = [{"event": "evaluate", "step": n, "epoch": n, "top1": 0.9} for n in (1, 2)]
    lines: list[dict[str, Any]] = [start, *evaluations, {"event": "end"}]
    (run.folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.folder / "code.txt").write_text("1.2.3\n")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("10-19", tuple(range(10, 20))),
        ("0,3,5", (0, 3, 5)),
        ("4", (4,)),
        ("0-2,7, 9", (0, 1, 2, 7, 9)),
        ("5-5", (5,)),
        ("5,3", (5, 3)),
    ],
)
def test_seeds(given: str, meant: tuple[int, ...]) -> None:
    assert parse_seeds(given) == meant


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "--seeds : expected 10-19, or 0,3,5"),
        ("1,,2", "--seeds 1,,2: expected 10-19, or 0,3,5"),
        ("a", "--seeds a: expected 10-19, or 0,3,5"),
        ("-3", "--seeds -3: expected"),
        ("1-2-3", "--seeds 1-2-3: expected"),
        ("1.5", "--seeds 1.5: expected"),
        ("19-10", "--seeds 19-10: 19-10 falls; expected 10-19"),
        ("1-3,2", "--seeds 1-3,2: 2 stands twice"),
    ],
)
def test_seeds_that_are_no_seeds(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_seeds(given)
    assert str(refused.value).startswith(message)


def test_quick_and_full_have_folders_of_their_own() -> None:
    assert default_folder(quick=True) != default_folder(quick=False)


def test_every_run_of_a_seed_has_its_seed_and_its_name(tmp_path: Path) -> None:
    names = set()
    for cell in SMALL.cells:
        for seed in (7, 8):
            made = run(SMALL, cell, seed, tmp_path)
            config = resolve(made.options)
            assert (config.seed, config.train.global_batch_size, config.epochs) == (seed, cell.kn, 2)
            assert (config.data.dir, config.data.threads) == (tmp_path / "digits", 1)
            names.add(made.name)
    assert len(names) == 6


def test_the_record_survives_json_and_has_what_a_reader_needs() -> None:
    errors = {"gradual-32": {7: 3.0, 8: 5.0}, "gradual-64": {7: 3.5, 8: 5.0}, "mpi-64": {7: 3.5, 8: 5.0}}
    config = resolve(["--config=goyal_mini", *SMALL.options])
    written = record(SMALL, errors, config, ["4d9cdaf"])
    read = json.loads(pretty_json(written))
    assert read == written
    assert read["cells"]["gradual-64"] == {
        "kn": 64,
        "ranks": 1,
        "options": list(SMALL.options),
        "errors": {"7": 3.5, "8": 5.0},
        "error": {"mean": 4.25, "std": pytest.approx(1.5 / 2**0.5), "n": 2},
        "difference_to_baseline": {"mean": 0.25, "std": pytest.approx(0.5 / 2**0.5), "n": 2},
    }
    assert read["tables"][1] == {
        "label": "gradual",
        "cell": "gradual-64",
        "paper": {"kn": 8192, "rate": 3.2, "error": 24.84, "std": 0.37, "source": "table 1"},
    }
    assert read["tables"][2]["paper"] is None
    assert [row["cell"] for row in read["sweep"]] == ["gradual-32", "gradual-64"]
    assert (read["settings"]["epochs"], read["settings"]["model"]["name"], read["code"]) == (2, "resnet8", ["4d9cdaf"])
    assert not {"seed", "metrics"} & set(read["settings"])
    assert read["hardware"]["cores"] >= 1
    assert "1706.02677" in read["paper"]


def test_importing_it_loads_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom hvdtrain.reproduce import goyal_mini, figures\ngoyal_mini.plan(quick=True)\n"
        "print(sorted({'torch', 'horovod', 'torchvision', 'matplotlib', 'nvidia.dali'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
