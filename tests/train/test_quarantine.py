"""What one worker cannot decode, every worker leaves out; too much of it ends the run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hvdtrain.config.schema import Config
from hvdtrain.data import quarantine as lists
from hvdtrain.data.decoder import Pictures
from hvdtrain.data.index import Index, Names
from hvdtrain.data.loader import Source
from hvdtrain.data.synthetic import NoiseDecoder, NoStorage
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import DataError
from hvdtrain.train.quarantine import SharedQuarantine

IMAGES = 200
PICTURES = Pictures(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def source() -> Source:
    index = Index(
        classes=("c",),
        names=Names.of(f"c/{number:03}.jpg" for number in range(IMAGES)),
        labels=np.zeros(IMAGES, np.int64),
        sizes=np.ones(IMAGES, np.int64),
        heights=np.ones(IMAGES, np.int32),
        widths=np.ones(IMAGES, np.int32),
    )
    noise = NoiseDecoder(batch_size=1, pictures=PICTURES, device=torch.device("cpu"))
    return Source(index, NoStorage(), noise)


def config(tmp_path: Path, **data: Any) -> Config:
    (tmp_path / "run").mkdir(exist_ok=True)
    return Config(run={"dir": tmp_path, "name": "run"}, data={"dir": tmp_path / "data", **data})


def masked(of: Source) -> list[int]:
    return of.quarantine.masked.nonzero()[0].tolist()


class Second(SoloComm):
    """Rank 1 of two; rank 0 has found what is given, leaves out from the begin what is told, and fails in nothing."""

    rank, size = 1, 2

    def __init__(self, found: dict[str, dict[int, str]], told: Any = ()) -> None:
        self.found, self.broadcast = found, iter([None, dict(told)])

    def sum(self, values: list[float], name: str) -> list[float]:
        return [value + sum(map(len, self.found.values())) for value in values]

    def gather(self, value: Any, name: str) -> list[Any]:
        return [self.found, value]

    def broadcast_object(self, value: Any, name: str) -> Any:
        return next(self.broadcast, None)


def test_lists_of_before_are_honoured(tmp_path: Path) -> None:
    (tmp_path / "data" / ".hvdtrain").mkdir(parents=True)
    lists.write(tmp_path / "data" / ".hvdtrain" / lists.FILE, {"train/c/003.jpg": "truncated", "val/c/004.jpg": "x"})
    given = config(tmp_path, max_bad_ratio=0.5)
    lists.write(given.run_dir / lists.FILE, {"train/c/005.jpg": "found on the way", "train/c/gone.jpg": "no more"})
    sources = {"train": source(), "val": source()}
    SharedQuarantine(given, SoloComm(), sources)
    assert masked(sources["train"]) == [3, 5]
    assert masked(sources["val"]) == [4]
    ours = {"train": source(), "val": source()}
    SharedQuarantine(config(tmp_path, quarantine="none"), SoloComm(), ours)
    assert masked(ours["train"]) == [5]  # the run's own list stays in force


def test_another_list_is_read_where_one_is_named(tmp_path: Path) -> None:
    lists.write(tmp_path / "mine.jsonl", {"train/c/007.jpg": "ugly"})
    of = source()
    SharedQuarantine(config(tmp_path, quarantine=str(tmp_path / "mine.jsonl")), SoloComm(), {"train": of})
    assert masked(of) == [7]
    with pytest.raises(DataError, match=f"there is no quarantine list {tmp_path}/none"):
        SharedQuarantine(config(tmp_path, quarantine=str(tmp_path / "none")), SoloComm(), {"train": source()})


def test_what_is_found_is_masked_and_kept_on_disk(tmp_path: Path) -> None:
    given, of = config(tmp_path), source()
    shared = SharedQuarantine(given, SoloComm(), {"train": of})
    assert shared.share() == {}
    of.quarantine.add(9, "cut\noff")
    assert shared.share() == {"train": {9: "cut\noff"}}
    assert shared.share() == {}
    of.quarantine.add(8, "gone")
    shared.share()
    assert lists.read(given.run_dir / lists.FILE) == {"train/c/008.jpg": "gone", "train/c/009.jpg": "cut\noff"}


def test_what_another_worker_found_is_masked_here_too(tmp_path: Path) -> None:
    of = source()
    shared = SharedQuarantine(
        config(tmp_path, max_bad_ratio=0.5), Second({"train": {1: "broken"}}, told={"train": [0]}), {"train": of}
    )
    of.quarantine.add(2, "mine")
    assert shared.share() == {"train": {1: "broken", 2: "mine"}}
    assert masked(of) == [0, 1, 2]
    assert not (tmp_path / "run" / lists.FILE).exists()  # rank 0 writes it


@pytest.mark.parametrize("comm", [SoloComm(), Second({"train": {}})])
def test_too_many_end_the_run_on_every_rank_and_rank_0_says_why(tmp_path: Path, comm: SoloComm) -> None:
    of = source()
    shared = SharedQuarantine(config(tmp_path, max_bad_ratio=0.01), comm, {"train": of})
    for row in (5, 6):
        of.quarantine.add(row, "broken")
    shared.share()  # two of two hundred are just allowed
    of.quarantine.add(7, "broken")
    message = "3 of 200 train images cannot be decoded: expected at most data.max_bad_ratio = 0.01 of them"
    with pytest.raises(DataError, match=f"{message} → hvdtrain data verify {tmp_path}/data") as raised:
        shared.share()
    assert raised.value.everyones is (comm.rank != 0)


@pytest.mark.parametrize("line", ["train/c/001.jpg", '{"image": "x"}', "[]", "{", '"x"'])
def test_a_list_that_is_something_else_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(f'{{"image": "a", "reason": "b"}}\n{line}\n')
    with pytest.raises(DataError, match=f"{path}:2: expected "):
        lists.read(path)
