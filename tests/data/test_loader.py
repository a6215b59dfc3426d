"""Index, order, windows and DALI together: the right picture with the right label at the right place of the stream."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hvdtrain.data import loader, order, scan
from hvdtrain.data.dali import DaliDecoder
from hvdtrain.data.decoder import Decoder, Pictures, Request, Undecodable
from hvdtrain.data.index import Index
from hvdtrain.data.loader import Augmentation, Batch, Source
from hvdtrain.data.storage import Folders
from hvdtrain.errors import DataError

IMAGES, CLASSES = 29, 5
WHOLE = Augmentation(area=(1, 1), aspect=(1, 1), flip=0)
Batches = Callable[..., list[Batch]]
USUAL = Augmentation(area=(0.08, 1), aspect=(3 / 4, 4 / 3), flip=0.5)


def write(root: Path) -> None:
    """Pictures in one red each, 8 times their row; green rises to the right and blue to the bottom."""
    classes = sorted(i % CLASSES for i in range(IMAGES))
    for row, label in enumerate(classes):
        (root / str(label)).mkdir(exist_ok=True, parents=True)
        across, down = np.meshgrid(np.arange(40), np.arange(40))
        picture = np.stack([np.full((40, 40), 8 * row), 6 * across, 6 * down], axis=2).astype(np.uint8)
        Image.fromarray(picture).save(root / str(label) / f"{row:02}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    write(root)
    return root


@pytest.fixture(scope="module")
def table(folder: Path) -> Index:
    return scan.scan(folder, workers=2)


def source(root: Path, table: Index, batch_size: int, *, prefetch: int = 2) -> Source:
    decoder = DaliDecoder(
        batch_size=batch_size,
        pictures=Pictures(8, (0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),
        decode_on_gpu=False,
        device=torch.device("cpu"),
        threads=1,
        prefetch=prefetch,
        by_name=True,
        largest=(40, 40),
    )
    return Source(table, Folders(root, table), decoder)


@pytest.fixture
def training(folder: Path, table: Index) -> Callable[..., list[Batch]]:
    def batches(
        augmentation: Augmentation,
        steps: int,
        *,
        seen: int = 0,
        rank: int = 0,
        size: int = 1,
        batch: int = 6,
        of: Source | None = None,
    ) -> list[Batch]:
        of = of or source(folder, table, batch)
        plans = loader.training_plans(
            table, augmentation, seed=4, images_seen=seen, rank=rank, size=size, batch_size=batch
        )
        return list(islice(loader.batches(plans, of), steps))

    return batches


@pytest.fixture
def evaluation(folder: Path, table: Index) -> Callable[..., list[Batch]]:
    def batches(*, rank: int, size: int, batch: int, of: Source | None = None) -> list[Batch]:
        plans = loader.evaluation_plans(table, image_size=8, resize=1.25, rank=rank, size=size, batch_size=batch)
        return list(loader.batches(plans, of or source(folder, table, batch)))

    return batches


def rows(batch: Batch) -> list[int]:
    """Which images these are, told by their red."""
    reds = batch.images[:, 0].mean((1, 2)) / 8
    assert torch.allclose(reds, reds.round(), atol=0.05)
    return [int(row) for row in reds.round()]


def test_a_batch_has_pictures_with_their_labels(training: Batches, table: Index) -> None:
    for batch in training(USUAL, 8):
        assert batch.images.shape == (6, 3, 8, 8)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [int(table.labels[row]) for row in rows(batch)]


def test_training_reads_the_stream_over_the_border_of_an_epoch(training: Batches) -> None:
    read = [row for batch in training(USUAL, 10) for row in rows(batch)]
    stream = [int(row) for epoch in range(3) for row in order.permutation(4, epoch, IMAGES)]
    assert read == stream[:60]


def test_every_batch_says_how_many_images_the_run_has_seen_after_it(training: Batches) -> None:
    assert [batch.images_seen for batch in training(WHOLE, 4, seen=100, rank=1, size=3)] == [118, 136, 154, 172]


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_train_on_what_one_rank_with_a_larger_batch_does(training: Batches, size: int) -> None:
    alone = training(USUAL, 5, seen=11, batch=6 * size)
    ranks = [training(USUAL, 5, seen=11, rank=rank, size=size) for rank in range(size)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert {part.images_seen for part in parts} == {whole.images_seen}


def test_a_run_that_goes_on_sees_what_it_would_have_seen(training: Batches) -> None:
    through = training(USUAL, 8)
    again = training(USUAL, 5, seen=through[2].images_seen)
    assert all(torch.equal(a.images, b.images) for a, b in zip(through[3:], again, strict=True))
    assert not torch.equal(through[3].images, through[4].images)


def test_every_epoch_crops_and_flips_anew(table: Index) -> None:
    plans = loader.training_plans(table, USUAL, seed=4, images_seen=0, rank=0, size=1, batch_size=IMAGES)
    first, second = islice(plans, 2)
    for plan in (first, second):
        assert sorted(plan.samples) == list(range(IMAGES))
        assert 0 < plan.flips.sum() < IMAGES
    by_sample = [plan.windows[np.argsort(plan.samples)] for plan in (first, second)]
    assert (by_sample[0] != by_sample[1]).any(1).mean() > 0.9


def test_a_planned_flip_is_in_the_picture(training: Batches) -> None:
    always, never = (Augmentation(area=(1, 1), aspect=(1, 1), flip=rate) for rate in (1, 0))
    (mirrored,), (straight,) = training(always, 1), training(never, 1)
    assert torch.equal(mirrored.images, straight.images.flip(3))
    assert (straight.images[:, 1].diff(dim=2) > 0).all()  # green rises to the right


def test_plans_need_no_image(table: Index) -> None:
    plans = loader.training_plans(table, USUAL, seed=4, images_seen=0, rank=0, size=2, batch_size=3)
    assert [plan.images_seen for plan in islice(plans, 3)] == [6, 12, 18]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_evaluation_sees_each_image_once_however_it_is_cut(
    evaluation: Batches, size: int, batch: int, table: Index
) -> None:
    seen = []
    for rank in range(size):
        for part in evaluation(rank=rank, size=size, batch=batch):
            assert 1 <= len(part.labels) <= batch
            assert part.labels.tolist() == [int(table.labels[row]) for row in rows(part)]
            seen += rows(part)
    assert seen == list(range(IMAGES))


def test_an_image_is_evaluated_beside_the_same_others_on_any_number_of_ranks(evaluation: Batches) -> None:
    alone = [rows(batch) for batch in evaluation(rank=0, size=1, batch=4)]
    for size in (2, 3, 5):
        assert [rows(batch) for rank in range(size) for batch in evaluation(rank=rank, size=size, batch=4)] == alone


def test_a_rank_without_an_image_evaluates_nothing(evaluation: Batches) -> None:
    assert evaluation(rank=0, size=IMAGES + 1, batch=4) == []


def test_evaluation_shows_the_unmirrored_centre(evaluation: Batches) -> None:
    (batch,) = evaluation(rank=0, size=1, batch=IMAGES)
    green = batch.images[:, 1].mean((0, 1))  # the window is 4 … 36 of 40, so the first of 8 columns is 4 … 8
    torch.testing.assert_close(green, torch.arange(8) * 24 + 33.0, atol=1.5, rtol=0)


@pytest.fixture
def damaged(tmp_path: Path, table: Index) -> Source:
    """Images of which rows 3, 4 and 20 were broken after the index was made."""
    write(tmp_path)
    for row, content in ((3, b""), (4, b"no picture"), (20, None)):
        path = tmp_path / table.names[row]
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    return source(tmp_path, table, 6)


def kept(whole: Batch, masked: set[int]) -> torch.Tensor:
    """The pictures of an undisturbed batch without those of some rows."""
    return whole.images[[i for i, row in enumerate(rows(whole)) if row not in masked]]


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_what_cannot_be_decoded_leaves_an_empty_slot_and_changes_nothing_else(
    training: Batches, damaged: Source, prefetch: int, caplog: pytest.LogCaptureFixture
) -> None:
    damaged.decoder = source(Path(damaged.storage.place(0)).parents[1], damaged.index, 6, prefetch=prefetch).decoder
    undisturbed = training(USUAL, 12)
    for ours, whole in zip(training(USUAL, 12, of=damaged), undisturbed, strict=True):
        assert torch.equal(ours.images, kept(whole, {3, 4, 20}))
        assert ours.labels.tolist() == [int(damaged.index.labels[row]) for row in rows(ours)]
        assert (ours.images_seen, len(ours.labels) + ours.skipped) == (whole.images_seen, 6)
        assert ours.plan is not None
        assert ours.plan.samples.tolist() == rows(ours)
    assert damaged.quarantine.found.keys() == {3, 4, 20}
    assert np.flatnonzero(damaged.quarantine.masked).tolist() == [3, 4, 20]
    for row in (3, 4, 20):
        assert f"left out: {damaged.storage.place(row)} cannot be decoded: " in caplog.text


def test_a_run_that_goes_on_masks_what_it_had_masked(training: Batches, damaged: Source) -> None:
    through = training(USUAL, 12, of=damaged)
    fresh = Source(damaged.index, damaged.storage, damaged.decoder)
    fresh.quarantine.mask([3, 4, 20])
    again = training(USUAL, 7, seen=through[4].images_seen, of=fresh)
    assert all(torch.equal(a.images, b.images) for a, b in zip(through[5:], again, strict=True))
    assert fresh.quarantine.found == {}  # known before: no decoder stumbled over them


@pytest.mark.parametrize("size", [1, 3])
def test_evaluation_leaves_out_what_cannot_be_decoded(evaluation: Batches, damaged: Source, size: int) -> None:
    seen = [row for rank in range(size) for batch in evaluation(rank=rank, size=size, batch=4, of=damaged)
            for row in rows(batch)]  # fmt: skip
    assert seen == [row for row in range(IMAGES) if row not in (3, 4, 20)]


def test_a_batch_of_which_nothing_is_left_is_empty(training: Batches, folder: Path, table: Index) -> None:
    of = source(folder, table, 6)
    second = [int(row) for row in order.permutation(4, 0, IMAGES)[6:12]]
    of.quarantine.mask(second)
    first, empty, third = training(USUAL, 3, of=of)
    assert (len(first.labels), len(empty.labels), len(third.labels)) == (6, 0, 6)
    assert (empty.images_seen, empty.skipped) == (12, 6)
    assert rows(third) == [int(row) for row in order.permutation(4, 0, IMAGES)[12:18]]


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_batches_of_an_evaluation_may_be_empty(
    evaluation: Batches, folder: Path, table: Index, last: int
) -> None:
    of = source(folder, table, 4)
    of.quarantine.mask(range(0 if last else 4, IMAGES))
    found = evaluation(rank=0, size=1, batch=4, of=of)
    assert [len(batch.labels) for batch in found] == [0 if last else 4, *[0] * 7]
    assert sum(batch.skipped for batch in found) == of.quarantine.masked.sum()


class Flaky:
    """A decoder whose first `times` decodings fail on their second request, though no image is at fault."""

    def __init__(self, behind: Decoder, times: int) -> None:
        self.behind, self.times = behind, times

    def decode(self, requests: Iterable[Request]) -> Iterator[torch.Tensor]:
        for number, pictures in enumerate(self.behind.decode(requests)):
            if self.times and number == 1:
                self.times -= 1
                raise Undecodable("the disk was away")
            yield pictures

    def fault(self, request: Request) -> str | None:
        return self.behind.fault(request)


def test_a_failure_that_goes_away_loses_nothing(training: Batches, folder: Path, table: Index) -> None:
    of = source(folder, table, 6)
    of.decoder = Flaky(of.decoder, times=5)
    for ours, whole in zip(training(USUAL, 9, of=of), training(USUAL, 9), strict=True):
        assert torch.equal(ours.images, whole.images)
    assert not of.quarantine.masked.any()


def test_a_failure_that_stays_though_no_image_is_at_fault_ends_the_run(training: Batches, damaged: Source) -> None:
    class Broken(Flaky):
        def decode(self, requests: Iterable[Request]) -> Iterator[torch.Tensor]:
            next(iter(requests))
            raise Undecodable("out of memory")
            yield

        def fault(self, request: Request) -> str | None:
            return None

    damaged.decoder = Broken(damaged.decoder, times=0)
    with pytest.raises(DataError, match="out of memory, 3 times in a row, though each image alone can be decoded"):
        training(USUAL, 2, of=damaged)
