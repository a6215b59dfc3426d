"""What was taken for what, counted by class."""

from pathlib import Path

import pytest
import torch

from hvdtrain.config.schema import Config
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.inference import figure
from hvdtrain.inference.confusion import Confusion
from hvdtrain.inference.evaluate import Judged, Report
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.preprocessing import Preprocessing

LABELS = [0, 0, 0, 1, 1, 3, 3, 3, 3]
TAKEN_FOR = [0, 1, 1, 1, 0, 3, 2, 3, 3]


def counted(*cuts: slice) -> Confusion:
    """One worker for each cut."""
    whole = Confusion.of(4)
    best = torch.tensor([[taken, (taken + 1) % 4] for taken in TAKEN_FOR])
    for cut in cuts:
        whole.add(torch.tensor(LABELS)[cut], best[cut])
    return whole


def test_images_are_counted_by_class() -> None:
    found = counted(slice(None))
    assert found.images == [3, 2, 0, 4]
    assert found.top1 == [1, 1, 0, 3]
    assert found.top5 == [1, 2, 0, 4]  # here of the two likeliest
    assert found.counts.dtype == torch.int64


def test_the_worst_classes_come_first_and_those_without_images_not_at_all() -> None:
    assert counted(slice(None)).worst() == [0, 1, 3]


def test_the_most_frequent_pair_comes_first() -> None:
    assert counted(slice(None)).pairs() == [(0, 1, 2), (1, 0, 1), (3, 2, 1)]


def test_however_the_images_are_cut_the_counts_are_the_same() -> None:
    whole, parts = counted(slice(None)), counted(slice(0, 2), slice(2, 7), slice(7, None))
    assert torch.equal(whole.counts, parts.counts)
    assert torch.equal(whole.among_five, parts.among_five)


class AsManyMore(SoloComm):
    """Another worker that has counted the same."""

    def start_sum(self, tensor: torch.Tensor, name: str) -> None:
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
        tensor.mul_(2)


def test_the_counts_of_all_workers_are_added_up_as_whole_numbers() -> None:
    found = counted(slice(None))
    found.counts[0, 0] = 2**53 + 1  # which no float64 is
    found.add_up(AsManyMore())
    assert found.top1 == [2**54 + 2, 2, 0, 6]
    assert found.top5 == [2, 4, 0, 8]


def test_classes_are_counted_once_for_all_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("images", "top1"):
        count = getattr(Confusion, name).fget
        monkeypatch.setattr(Confusion, name, property(lambda self, count=count: asked.append(1) or count(self)))
    found = Confusion.of(200)
    found.add(torch.arange(200), torch.arange(200)[:, None])
    judged = Judged("weights", Evaluation(200, 1.0, 1.0, 0.0), found)
    report = Report("a", {}, Path(), tuple(map(str, range(200))), Preprocessing.of(Config()), 200, 1, (judged,))
    assert figure.draw(report).startswith(b"\x89PNG")
    assert len(asked) < 10
