"""What efficiency is measured against: what sets of workers before have measured, if it is of the same step."""

from types import SimpleNamespace
from typing import Any

import pytest

from hvdtrain.config.schema import Config
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.train import speeds


def test_a_baseline_is_measured_once_for_each_number_of_micro_batches_and_size_of_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[Any] = []
    monkeypatch.setattr(speeds, "_find", lambda *_: measured.append(len(measured)) or f"baseline {len(measured)}")
    before: dict[tuple[int, int], Any] = {}
    found = []
    for micro_batches, images_seen in ((1, 0), (2, 0), (1, 50), (1, 100), (2, 50), (1, 150)):
        data = SimpleNamespace(pixels=lambda seen: 128 if seen < 100 else 224)
        parts: Any = SimpleNamespace(
            micro_batches=micro_batches, data=data, state=SimpleNamespace(images_seen=images_seen)
        )
        found.append(speeds.find(Config(), SoloComm(), parts, Activity(), {}, before=before))
    assert found == [f"baseline {number}" for number in (1, 2, 1, 3, 2, 3)]
