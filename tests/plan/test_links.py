"""What benchmarks/links.py computes, without its links."""

from argparse import Namespace

import pytest
from links import predict, table

OPTIONS = Namespace(model="resnet18", pixels=64, batch=16, rounds=2)


def test_a_link_so_slow_that_its_bytes_are_all() -> None:
    fast, slow = (predict(OPTIONS, 2, 0.2, megabits) for megabits in (10_000, 200))
    assert fast["predicted_seconds"] < slow["predicted_seconds"]
    # 11.7 million gradients, of which two workers each send all, at 95 % of 200 Mbit/s
    assert slow["predicted_seconds"] == pytest.approx(0.2 / 3 + 11_689_512 * 4 / (0.95 * 25e6), rel=0.05)


def test_predicted_stands_beside_measured() -> None:
    row = predict(OPTIONS, 4, 0.2, 1000) | {"measured_seconds": [0.5, 0.4]}
    said = table(OPTIONS, [row])
    assert "450 ms" in said
    assert "44.4 %" in said
