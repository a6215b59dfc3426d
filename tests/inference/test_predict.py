"""hvdtrain predict: the digit on a picture, as the run's own evaluation sees it."""

import json
import shutil
from pathlib import Path

import pytest

from ..trained import Digits, call, fails, random_run


def pictures(digits: Digits, of_each: int | None = None) -> list[Path]:
    return [path for digit in sorted((digits.data / "val").iterdir()) for path in sorted(digit.iterdir())[:of_each]]


def test_it_names_the_digit(trained_digits: Digits) -> None:
    images = pictures(trained_digits, 2)
    code, out, err = call("predict", trained_digits.run, "--average", "--top", 3, *images)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[::4] == [str(image) for image in images]
    best = [line.split() for line in lines[1::4]]
    assert all(unit == "%" for _, unit, _ in best)
    assert sum(name == image.parent.name for (_, _, name), image in zip(best, images, strict=True)) >= 17


def test_over_all_validation_images_it_hits_as_many_as_the_evaluation_counts(
    trained_digits: Digits, tmp_path: Path
) -> None:
    assert call("eval", trained_digits.run, "--json", tmp_path / "eval.json")[0] == 0
    counted = json.loads((tmp_path / "eval.json").read_text())["evaluations"][0]
    code, out, _ = call("predict", trained_digits.run, "--json", *pictures(trained_digits))
    assert code == 0
    found = json.loads(out)
    assert found["checkpoint"] == str(trained_digits.checkpoint)
    assert len(found["images"]) == 364
    hits = dict.fromkeys("0123456789", 0)
    for each in found["images"]:
        best = each["classes"]
        assert [entry["class"] for entry in best] == [str(entry["index"]) for entry in best]
        shares = [entry["probability"] for entry in best]
        assert shares == sorted(shares, reverse=True)
        digit = Path(each["image"]).parent.name
        hits[digit] += best[0]["class"] == digit
    assert hits == {row["class"]: row["top1_images"] for row in counted["per_class"]}


def test_all_probabilities_sum_to_1(trained_digits: Digits) -> None:
    _, out, _ = call("predict", trained_digits.run, "--json", "--top", 1000, *pictures(trained_digits, 1))
    for each in json.loads(out)["images"]:
        assert len(each["classes"]) == 10
        assert sum(entry["probability"] for entry in each["classes"]) == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_decoded_is_named_and_the_others_go_on(trained_digits: Digits, tmp_path: Path) -> None:
    good, other = pictures(trained_digits, 1)[:2]
    cut, text, none = tmp_path / "cut.JPEG", tmp_path / "text.png", tmp_path / "none.JPEG"
    cut.write_bytes(good.read_bytes()[:-200])
    text.write_text("no image")
    code, out, err = call("predict", trained_digits.run, "--top", 1, cut, good, text, none, tmp_path, other)
    assert code == 4
    assert out.splitlines()[::2] == [str(good), str(other)]
    told = err.splitlines()
    assert len(told) == 4
    for line, path in zip(told, (cut, text, none, tmp_path), strict=True):
        assert line.startswith(f"hvdtrain: {path} cannot be decoded: ")
    assert told[1].endswith(": it begins like no JPEG, PNG, BMP or WebP")
    assert told[2].endswith(": No such file or directory")
    assert told[3].endswith(": a folder")
    code, out, _ = call("predict", trained_digits.run, "--json", cut, good)
    assert code == 4
    first, second = json.loads(out)["images"]
    assert set(first) == {"image", "fault"}
    assert set(second) == {"image", "classes"}


def test_a_run_that_was_moved_and_whose_images_are_gone_still_names_classes(
    trained_digits: Digits, tmp_path: Path
) -> None:
    run = tmp_path / "moved"
    shutil.copytree(trained_digits.run, run)
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace(str(trained_digits.data), "/gone"))
    image = pictures(trained_digits, 1)[3]
    told = [call("predict", folder, image) for folder in (trained_digits.run, run)]
    assert told[0] == told[1]
    assert told[0][0] == 0


def test_without_names_classes_are_numbers(tmp_path: Path, trained_digits: Digits) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8", classes=7)
    code, out, err = call("predict", run, "--top", 7, pictures(trained_digits, 1)[0])
    assert code == 0, err
    assert sorted(line.split()[-1] for line in out.splitlines()[1:]) == list("0123456")


def test_what_cannot_be_is_one_line(tmp_path: Path, trained_digits: Digits) -> None:
    image = pictures(trained_digits, 1)[0]
    assert "--top 0: expected 1 at least" in fails(2, "predict", trained_digits.run, "--top", 0, image)
    assert "no such run directory or checkpoint" in fails(5, "predict", tmp_path / "none", image)
    run, _ = random_run(tmp_path / "run", "resnet8")
    assert "has no moving average" in fails(5, "predict", run, "--average", image)
