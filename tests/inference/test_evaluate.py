"""hvdtrain eval on one worker: the run's own accuracy, and where it comes from."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from hvdtrain.checkpoint import store

from ..trained import Digits, call, fails, random_run

CLASSES = [str(digit) for digit in range(10)]


def events(run: Path, name: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [record for record in records if record["event"] == name]


@pytest.fixture(scope="module")
def evaluated(trained_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, bytes]:
    """JSON, words and figure of the run's newest checkpoint."""
    folder = tmp_path_factory.mktemp("evaluated")
    code, out, err = call("eval", trained_digits.run, "--json", folder / "eval.json", "--figure", folder / "eval.png")
    assert code == 0, err
    return json.loads((folder / "eval.json").read_text()), out, (folder / "eval.png").read_bytes()


def test_the_weights_and_their_average_have_the_accuracy_that_the_run_found(
    evaluated: tuple[dict[str, Any], str, bytes], trained_digits: Digits
) -> None:
    told = events(trained_digits.run, "evaluate")[-1]
    weights, average = evaluated[0]["evaluations"]
    assert (weights["weights"], average["weights"]) == ("weights", "average")
    assert weights["images"] == average["images"] == 364
    assert [weights["top1"], weights["top5"]] == [told["top1"], told["top5"]]
    assert [average["top1"], average["top5"]] == [told["average_top1"], told["average_top5"]]
    assert weights["loss"] == pytest.approx(told["loss"], rel=1e-5)
    assert weights["top1"] > 0.6


def test_the_counts_of_the_classes_are_those_of_the_folders(
    evaluated: tuple[dict[str, Any], str, bytes], trained_digits: Digits
) -> None:
    record, _, _ = evaluated
    assert record["classes"] == CLASSES
    for each in record["evaluations"]:
        rows = each["per_class"]
        images = {row["class"]: row["images"] for row in rows}
        assert images == {name: len(list((trained_digits.data / "val" / name).iterdir())) for name in CLASSES}
        assert sum(row["top1_images"] for row in rows) == round(each["top1"] * 364)
        assert all(row["top1"] == row["top1_images"] / row["images"] for row in rows)
        assert sum(pair["images"] for pair in each["confusions"]) == 364 - round(each["top1"] * 364)


def test_what_is_evaluated_and_how_its_pictures_are_made_is_said(
    evaluated: tuple[dict[str, Any], str, bytes], trained_digits: Digits
) -> None:
    record, out, _ = evaluated
    network = record["network"]
    assert network["model"] == "resnet8"
    assert network["checkpoint"] == str(trained_digits.checkpoint)
    assert network["step"] == 269
    assert network["epoch"] == pytest.approx(3.0, abs=0.02)
    assert record["preprocessing"]["resize"] == record["preprocessing"]["crop"] == 32
    assert record["workers"] == 1
    assert record["left_out"] == 0
    for wanted in (
        f"resnet8, {trained_digits.checkpoint}: step 269, epoch 3.0",
        "364 of ",
        "resize 32, crop 32, bilinear; on 1 worker\n",
        "the weights themselves",
        "the moving average of the weights",
        "worst classes ",
        "most confused ",
    ):
        assert wanted in out


def test_nothing_is_staged_for_each_image_is_read_once(
    evaluated: tuple[dict[str, Any], str, bytes], trained_digits: Digits, tmp_path: Path
) -> None:
    run, near = tmp_path / "run", tmp_path / "near"
    shutil.copytree(trained_digits.run, run)
    settings = (run / "config.yaml").read_text()
    changed = re.sub(r"stage: none\n( *)stage_dir: ''", rf"stage: copy\n\1stage_dir: {near}", settings)
    assert changed != settings
    (run / "config.yaml").write_text(changed)
    code, _, err = call("eval", run, "--json", tmp_path / "eval.json")
    assert code == 0, err
    assert json.loads((tmp_path / "eval.json").read_text())["evaluations"] == evaluated[0]["evaluations"]
    assert not near.exists()


def test_the_figure_is_a_png(evaluated: tuple[dict[str, Any], str, bytes]) -> None:
    assert evaluated[2].startswith(b"\x89PNG")


def test_the_best_checkpoint_is_that_of_the_best_top1(trained_digits: Digits) -> None:
    judged = {path: store.form.read_manifest(path).top1 for path in store.paths(trained_digits.run / "checkpoints")}
    assert len(judged) == 3
    best = max(judged, key=lambda path: (judged[path] or 0, path))
    code, out, err = call("eval", trained_digits.run, "--which", "best")
    assert code == 0, err
    assert f"{best}: step " in out
    by_name = call("eval", best)
    assert by_name == (0, out, err)


def test_other_images_are_evaluated_where_they_have_the_same_classes(trained_digits: Digits, tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "val" / name).mkdir(parents=True)
        for path in sorted((trained_digits.data / "val" / name).iterdir())[:2]:
            shutil.copy(path, tmp_path / "val" / name)
    code, out, err = call("eval", trained_digits.run, "--data", tmp_path)
    assert code == 0, err
    assert f"20 of {tmp_path}/val, each once" in out
    shutil.rmtree(tmp_path / "val" / "7")
    assert "/val has 9 classes, the network tells 10 apart" in fails(4, "eval", trained_digits.run, "--data", tmp_path)
    shutil.copytree(tmp_path / "val" / "8", tmp_path / "val" / "seven")
    assert "other classes than the network was trained on: 7, seven" in fails(
        4, "eval", trained_digits.run, "--data", tmp_path
    )


@pytest.mark.parametrize(
    ("was", "now"), [("source: images", "source: synthetic"), ("quarantine: auto", "quarantine: a")]
)
def test_other_images_are_read_whatever_the_run_had(
    evaluated: tuple[dict[str, Any], str, bytes], was: str, now: str, trained_digits: Digits, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_digits.run, run)
    settings = (run / "config.yaml").read_text()
    assert was in settings
    (run / "config.yaml").write_text(settings.replace(was, now))
    code, _, err = call("eval", run, "--data", trained_digits.data, "--json", tmp_path / "eval.json")
    assert code == 0, err
    told = json.loads((tmp_path / "eval.json").read_text())["evaluations"]
    assert [each["confusions"] for each in told] == [each["confusions"] for each in evaluated[0]["evaluations"]]


def test_an_image_that_cannot_be_decoded_is_left_out_and_counted(trained_digits: Digits, tmp_path: Path) -> None:
    shutil.copytree(trained_digits.data / "val", tmp_path / "val")
    assert call("eval", trained_digits.run, "--data", tmp_path)[0] == 0  # makes the index
    path = sorted((tmp_path / "val" / "3").iterdir())[0]
    path.write_bytes(bytes(path.stat().st_size))
    code, out, err = call("eval", trained_digits.run, "--data", tmp_path)
    assert code == 0, err
    assert "363 of " in out
    assert "each once, 1 more cannot be decoded" in out
    assert f"left out: {path} cannot be decoded" in err


def test_what_is_no_checkpoint_is_one_line_that_names_one(trained_digits: Digits, tmp_path: Path) -> None:
    line = fails(5, "eval", trained_digits.run / "checkpoints" / "images-000000000001")
    assert "no such run directory or checkpoint → the newest there is" in line
    assert str(trained_digits.checkpoint) in line
    assert f"{tmp_path}/none: no such run directory or checkpoint → ls " in fails(5, "eval", tmp_path / "none")
    (tmp_path / "none-20261126").mkdir()
    (tmp_path / "none-20261126" / "config.yaml").touch()
    assert f"→ perhaps {tmp_path}/none-20261126" in fails(5, "eval", tmp_path / "none")
    assert "expected a run directory with config.yaml" in fails(5, "eval", tmp_path)
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "manifest.json").touch()
    assert "has no run's settings: expected" in fails(5, "eval", tmp_path / "lost")
    shutil.copy(trained_digits.run / "config.yaml", tmp_path)
    assert "/checkpoints has no checkpoint → hvdtrain status" in fails(5, "eval", tmp_path, "--data", tmp_path)
    assert "knows its accuracy → --which newest" in fails(5, "eval", tmp_path, "--data", tmp_path, "--which", "best")


def test_a_torn_checkpoint_is_refused_by_name_and_passed_over_as_the_newest(
    trained_digits: Digits, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_digits.run, run)
    newest, before, *_ = store.paths(run / "checkpoints")
    (newest / "tensors.pt").write_bytes(b"torn")
    assert f"{newest}/tensors.pt is torn: 4 bytes" in fails(5, "eval", newest)
    code, out, err = call("eval", run)
    assert code == 0, err
    assert f"{before}: step " in out
    assert "taking an earlier checkpoint" in err
    assert newest.exists()  # what becomes of it is the run's affair


def test_a_run_whose_images_are_gone_asks_for_others(tmp_path: Path) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8")
    line = fails(4, "eval", run)
    assert f"no folder {tmp_path}/run/nowhere of images → --data DIR" in line


def test_where_the_results_cannot_go_is_said_in_one_line(trained_digits: Digits, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "eval.json"
    assert f"{missing}: no folder {missing.parent}" in fails(2, "eval", trained_digits.run, "--json", missing)
    code, _, err = call("eval", trained_digits.run, "--json", "/proc/eval.json")
    assert code == 3
    assert "/proc/eval.json cannot be written: " in err
