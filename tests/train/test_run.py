"""A run of one worker from its launch to its summary, stopped and gone on with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hvdtrain.checkpoint import format as form
from hvdtrain.data import scan
from hvdtrain.data.pack import pack
from hvdtrain.metrics import targets

from ..trained import call

SMALL = [
    *("--config", "demo", "--data.batch_size", "24", "--data.image_size", "16", "--epochs", "0.1", "--seed", "3"),
    *("--optim.warmup_epochs", "0", "--run.report_every", "2", "--run.name", "r", "--checkpoint.every_epochs", "0.05"),
]
MIDDLE, TOTAL = 72, 144  # images seen at the two checkpoints: 0.05 and 0.1 of 1,433, rounded up to whole steps


def train(digits: Path, runs: Path, *more: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a run of one worker in this process, which is left as it was."""
    place = ("--data.dir", digits, "--run.dir", runs, "--metrics.baselines_dir", f"{runs}-speeds")
    return call("train", *SMALL, *place, *more)


@pytest.fixture(scope="module")
def finished(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A whole run's folder, stdout and stderr."""
    runs = tmp_path_factory.mktemp("runs")
    code, out, err = train(digits, runs)
    assert code == 0, err
    return runs / "r", out, err


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def checkpoint(folder: Path, images_seen: int) -> dict[str, Any]:
    found = form.read(folder / "checkpoints" / f"images-{images_seen:012}")
    return form.tensors(found.data, torch.device("cpu"))


def weights(folder: Path, images_seen: int) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = checkpoint(folder, images_seen)["model"]
    return model


def leaves(tree: Any, at: str = "") -> dict[str, Any]:
    """Everything in a checkpoint by its path; tensors as lists of their numbers."""
    if isinstance(tree, dict | list):
        branches = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, branch in branches for path, leaf in leaves(branch, f"{at}/{key}").items()}
    return {at: tree.tolist() if isinstance(tree, torch.Tensor) else tree}


def test_the_summary_says_accuracy_throughput_and_where(finished: tuple[Path, str, str]) -> None:
    folder, out, err = finished
    for wanted in ("top-1 ", "of 364 validation images", "images/s on 1 worker", f" {folder}", "/metrics"):
        assert wanted in out
    assert "minibatch kn = 1 x 24 = 24 images" in err
    assert "1433 training and 364 validation images, 10 classes" in err


def test_the_folder_has_what_the_design_names(finished: tuple[Path, str, str]) -> None:
    folder, _, _ = finished
    assert sorted(p.name for p in folder.iterdir()) == [
        *("checkpoints", "config.yaml", "environment.json", "events.jsonl", "logs", "outcome")
    ]
    assert yaml.safe_load((folder / "config.yaml").read_text())["seed"] == 3
    assert [p.name for p in (folder / "logs").iterdir()] == ["rank-0.log"]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["world_size"] == 1
    assert [worker["metrics"].partition(":")[0] for worker in environment["workers"]] == ["127.0.0.1"]


def test_at_the_end_prometheus_has_no_target_left(finished: tuple[Path, str, str]) -> None:
    folder, _, _ = finished
    assert targets.file(folder).parent.is_dir()
    assert not targets.file(folder).exists()


def test_the_events_count_images_and_steps(finished: tuple[Path, str, str]) -> None:
    records = events(finished[0])[:8]
    assert [r["event"] for r in records if r["event"] != "checkpoint"] == [
        *("start", "report", "report", "report", "evaluate", "end")
    ]  # checkpoints are written meanwhile, and told of when they are durable
    assert [(r["step"], r["images_seen"]) for r in records if r["event"] == "report"] == [(2, 48), (4, 96), (6, 144)]
    assert [r["images_seen"] for r in records if r["event"] == "checkpoint"] == [MIDDLE, TOTAL]
    assert records[0]["total_images"] == TOTAL
    assert [r["step"] for r in records if r["event"] == "checkpoint"] == [3, 6]
    assert all(r["images_per_second"] > 0 and r["lr"] == 0.1 * 24 / 32 for r in records if r["event"] == "report")
    assert next(r for r in records if r["event"] == "evaluate")["images"] == 364


def test_a_finished_run_is_not_trodden_on(finished: tuple[Path, str, str], digits: Path) -> None:
    folder, _, _ = finished
    before = (folder / "events.jsonl").read_text()
    code, _, err = train(digits, folder.parent)
    assert code == 2
    assert err == f"hvdtrain: {folder} holds a run already → --resume auto to go on, or another --run.name\n"
    assert (folder / "events.jsonl").read_text() == before


def test_a_run_that_goes_on_ends_with_the_weights_of_one_that_never_stopped(
    finished: tuple[Path, str, str], digits: Path
) -> None:
    folder, _, _ = finished
    wanted = weights(folder, TOTAL)
    first, last = sorted((folder / "checkpoints").iterdir())
    last.rename(folder / "the end")  # as if it had been killed before
    code, _, err = train(digits, folder.parent, "--resume", "auto")
    assert code == 0, err
    assert f"resuming from {first}: step 3, 72 images seen" in err
    found = weights(folder, TOTAL)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [r["event"] for r in events(folder)].count("resume") == 1


def test_a_run_goes_on_from_shards_of_the_same_images(digits: Path, tmp_path: Path) -> None:
    options = ("--max_steps", "4", "--checkpoint.every_epochs", "0.03")
    for name in ("folders", "packed"):
        assert train(digits, tmp_path, *options, "--run.name", name)[0] == 0
    pack(digits, tmp_path / "shards", cache=tmp_path, workers=1, shard_bytes=10**6, max_side=None)
    last = sorted((tmp_path / "packed" / "checkpoints").iterdir())[-1]
    last.rename(tmp_path / "the end")
    code, _, err = train(tmp_path / "shards", tmp_path, *options, "--run.name", "packed", "--resume", "auto")
    assert code == 0, err
    assert "resuming from" in err
    found, wanted = (weights(tmp_path / name, 96) for name in ("packed", "folders"))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_run_does_not_go_on_with_other_images(finished: tuple[Path, str, str], digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "fewer")
    next((tmp_path / "fewer" / "train" / "3").iterdir()).unlink()
    code, _, err = train(tmp_path / "fewer", finished[0].parent, "--resume", "auto")
    assert code == 5
    assert "the checkpoint was made with the training images" in err


def test_another_configuration_does_not_go_on_from_a_checkpoint(finished: tuple[Path, str, str], digits: Path) -> None:
    code, _, err = train(digits, finished[0].parent, "--resume", "auto", "--seed", "4")
    assert code == 5
    assert "belongs to configuration" in err


def test_a_refused_run_leaves_the_configuration_of_the_first(finished: tuple[Path, str, str], digits: Path) -> None:
    train(digits, finished[0].parent, "--resume", "auto", "--seed", "5")
    assert yaml.safe_load((finished[0] / "config.yaml").read_text())["seed"] == 3


def test_a_run_without_its_data_names_the_folder(tmp_path: Path) -> None:
    code, _, err = train(tmp_path / "none", tmp_path)
    assert code == 4
    wanted = f"{tmp_path}/none/train/<class>/*.JPEG or {tmp_path}/none/train/*.tar"
    assert err == f"hvdtrain: no folder {tmp_path}/none/train: expected {wanted} → {scan.REMEDY}\n"


def test_a_run_that_begins_where_it_is_over_has_that_checkpoint_though_nothing_is_evaluated(
    finished: tuple[Path, str, str], digits: Path, tmp_path: Path
) -> None:
    """As after a change of workers that came with the last step."""
    last = sorted((finished[0] / "checkpoints").iterdir())[-1]
    without = ("--evaluation.at_end", "false", "--resume_changed", "accept")
    code, _, err = train(digits, tmp_path, "--resume", str(last), *without)
    assert code == 0, err
    assert weights(tmp_path / "r", TOTAL).keys() == weights(finished[0], TOTAL).keys()


RECIPE = [
    *("--train.global_batch_size", "48", "--train.label_smoothing", "0.1", "--train.clip_norm", "0.5"),
    *("--train.ema_decay", "0.75", "--evaluation.every_epochs", "0.05"),
]
HALF = ["--precision", "fp16", "--max_steps", "4", "--checkpoint.every_epochs", "0.03"]  # slow on a processor


@pytest.mark.parametrize(
    ("options", "middle", "end", "parts"),
    [
        (RECIPE, 96, TOTAL, {"model", "optimizer", "average"}),
        (HALF, 48, 96, {"model", "optimizer", "scaler"}),
        (["--distributed.compression", "fp16", *RECIPE], 96, TOTAL, {"model", "optimizer", "scaler", "average"}),
    ],
    ids=["micro-batches, smoothing, clipping and average", "fp16", "fp16 on the way, were there others"],
)
def test_whatever_the_recipe_a_run_goes_on_to_the_same_bits(
    digits: Path, tmp_path: Path, options: list[str], middle: int, end: int, parts: set[str]
) -> None:
    assert train(digits, tmp_path, *options)[0] == 0
    folder = tmp_path / "r"
    wanted = leaves(checkpoint(folder, end))
    (folder / "checkpoints" / f"images-{end:012}").rename(folder / "the end")
    code, _, err = train(digits, tmp_path, *options, "--resume", "auto")
    assert code == 0, err
    assert f"{middle} images seen" in err
    assert checkpoint(folder, middle).keys() == parts | {"progress", "generators"}
    found = leaves(checkpoint(folder, end))
    assert found.keys() == wanted.keys()
    assert [path for path, leaf in found.items() if leaf != wanted[path]] == []
    first, second = (r for r in events(folder) if r["event"] == "evaluate" and r["images_seen"] == end)
    same = {"loss", "top1", "top5", "average_loss", "average_top1", "average_top5"} & first.keys()
    assert {name: first[name] for name in same} == {name: second[name] for name in same}


def test_a_run_tells_of_its_micro_batches_and_its_average(digits: Path, tmp_path: Path) -> None:
    code, _, err = train(digits, tmp_path, *RECIPE)
    assert code == 0, err
    assert "minibatch kn = 1 x 24 x 2 = 48 images, peak rate 0.15" in err
    assert "% averaged)" in err
    records = events(tmp_path / "r")
    assert [(r["step"], r["images_seen"]) for r in records if r["event"] == "report"] == [(2, 96), (3, 144)]
    assert records[0]["global_batch_size"] == 48
    middle, last = (r for r in records if r["event"] == "evaluate")
    assert (middle["images_seen"], last["images_seen"]) == (96, TOTAL)
    for record in (middle, last):
        assert 0 <= record["average_top1"] <= record["average_top5"] <= 1
        assert record["average_loss"] > 0
        assert record["average_loss"] != record["loss"]


def test_a_run_in_half_precision_keeps_weights_in_single_and_a_scale(digits: Path, tmp_path: Path) -> None:
    code, _, err = train(digits, tmp_path, *HALF)
    assert code == 0, err
    assert "resnet8, fp16, 1 worker on cpu" in err
    found = checkpoint(tmp_path / "r", 96)
    assert {w.dtype for w in found["model"].values() if w.is_floating_point()} == {torch.float32}
    assert all(bool(w.isfinite().all()) for w in found["model"].values())
    assert 1 < found["scaler"]["scale"] <= 2**16
    assert found["optimizer"]["state"] != {}  # some step was not left out
    losses = [r["loss"] for r in events(tmp_path / "r") if r["event"] == "report"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("first_epoch", "seen"), [(0, [48, 72, 96, 120, 144]), (0.06, [96, 120, 144]), (5, [144])])
def test_no_evaluation_comes_before_its_first_epoch_and_one_after_the_last_step(
    digits: Path, tmp_path: Path, first_epoch: float, seen: list[int]
) -> None:
    """An epoch has 1,433 images: 72 of them are 0.0502, 96 are 0.0670."""
    options = ("--evaluation.every_epochs", "0.02", "--evaluation.first_epoch", str(first_epoch))
    assert train(digits, tmp_path, *options)[0] == 0
    assert [r["images_seen"] for r in events(tmp_path / "r") if r["event"] == "evaluate"] == seen


def test_where_no_speed_can_be_kept_the_run_ends_well_all_the_same(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    more = ("--metrics.baselines_dir", str(tmp_path / "file" / "folder"), "--run.report_every", "1", "--epochs", "0.2")
    code, out, err = train(digits, tmp_path / "runs", *more)
    assert code == 0
    assert "images/s on 1 worker" in out
    assert f"this run's speed is not kept in {tmp_path / 'file' / 'folder'}: Not a directory" in err
