"""Speeds kept for later runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtrain.metrics import baselines

from .test_efficiency import ALONE

SETTING = {"model": "resnet8", "batch_size": 16, "input": {"decoder": "dali"}}


def test_what_was_kept_is_found_and_said_to_be_stored(tmp_path: Path) -> None:
    baselines.save(tmp_path / "new", SETTING, replace(ALONE, ranks=[0.1, 0.2], together=0.1, communication=0.01))
    assert baselines.load(tmp_path / "new", SETTING, workers=1, pixels=32) == replace(ALONE, source="stored")


@pytest.mark.parametrize(
    "other",
    [{**SETTING, "batch_size": 32}, {**SETTING, "input": {"decoder": "pillow"}}, {"model": "resnet8"}, {}],
)
def test_under_another_setting_nothing_is_found(tmp_path: Path, other: dict[str, object]) -> None:
    baselines.save(tmp_path, SETTING, ALONE)
    assert baselines.load(tmp_path, other, workers=1, pixels=32) is None


def test_the_order_of_the_settings_does_not_matter(tmp_path: Path) -> None:
    baselines.save(tmp_path, SETTING, ALONE)
    assert baselines.load(tmp_path, dict(reversed(SETTING.items())), workers=1, pixels=32) is not None


def test_numbers_of_workers_are_kept_apart_and_the_newest_replaces(tmp_path: Path) -> None:
    for at, workers in ((1.0, 1), (2.0, 8), (3.0, 1)):
        baselines.save(tmp_path, SETTING, replace(ALONE, workers=workers, measured_at=at))
    found = [baselines.load(tmp_path, SETTING, workers=k, pixels=32) for k in (1, 8, 2)]
    assert [each and each.measured_at for each in found] == [3.0, 2.0, None]


def test_pictures_of_another_size_are_another_matter(tmp_path: Path) -> None:
    baselines.save(tmp_path, SETTING, replace(ALONE, pixels=224))
    assert baselines.load(tmp_path, SETTING, workers=1, pixels=128) is None
    assert baselines.load(tmp_path, SETTING, workers=1, pixels=224) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"setting": {}}', "\x00"])
def test_a_file_that_is_no_speed_is_no_baseline(tmp_path: Path, text: str) -> None:
    baselines.save(tmp_path, SETTING, ALONE).write_text(text)
    assert baselines.load(tmp_path, SETTING, workers=1, pixels=32) is None


def test_parts_that_do_not_sum_to_the_step_are_no_baseline(tmp_path: Path) -> None:
    path = baselines.save(tmp_path, SETTING, ALONE)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "step_seconds": 0.2}))
    assert baselines.load(tmp_path, SETTING, workers=1, pixels=32) is None


def test_without_a_folder_there_is_no_baseline(tmp_path: Path) -> None:
    assert baselines.load(tmp_path / "nowhere", SETTING, workers=1, pixels=32) is None
