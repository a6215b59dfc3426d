"""Index, order, windows and DALI together: the right picture with the right label at the right place of the stream."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hvdtrain.data import index, loader, order
from hvdtrain.data.dali import Colours, Decoder
from hvdtrain.data.index import Index
from hvdtrain.data.loader import Augmentation, Batch

IMAGES, CLASSES = 29, 5
WHOLE = Augmentation(area=(1, 1), aspect=(1, 1), flip=0)
USUAL = Augmentation(area=(0.08, 1), aspect=(3 / 4, 4 / 3), flip=0.5)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Pictures in one red each, 8 times their row; green rises to the right and blue to the bottom."""
    root = tmp_path_factory.mktemp("pictures")
    classes = sorted(i % CLASSES for i in range(IMAGES))
    for row, label in enumerate(classes):
        (root / str(label)).mkdir(exist_ok=True)
        across, down = np.meshgrid(np.arange(40), np.arange(40))
        picture = np.stack([np.full((40, 40), 8 * row), 6 * across, 6 * down], axis=2).astype(np.uint8)
        Image.fromarray(picture).save(root / str(label) / f"{row:02}.png")
    return index.build(root, threads=2)


def decoder(batch_size: int) -> Decoder:
    return Decoder(
        batch_size=batch_size,
        image_size=8,
        colours=Colours((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),
        decode_on_gpu=False,
        device=torch.device("cpu"),
        threads=1,
        prefetch=2,
    )


def training(
    table: Index, augmentation: Augmentation, steps: int, *, seen: int = 0, rank: int = 0, size: int = 1, batch: int = 6
) -> list[Batch]:
    plans = loader.training_plans(table, augmentation, seed=4, images_seen=seen, rank=rank, size=size, batch_size=batch)
    return list(islice(loader.batches(plans, table, decoder(batch)), steps))


def evaluation(table: Index, *, rank: int, size: int, batch: int) -> list[Batch]:
    plans = loader.evaluation_plans(table, resize=1.25, rank=rank, size=size, batch_size=batch)
    return list(loader.batches(plans, table, decoder(batch)))


def rows(batch: Batch) -> list[int]:
    """Which images these are, told by their red."""
    reds = batch.images[:, 0].mean((1, 2)) / 8
    assert torch.allclose(reds, reds.round(), atol=0.05)
    return [int(row) for row in reds.round()]


def test_a_batch_has_pictures_with_their_labels(table: Index) -> None:
    for batch in training(table, USUAL, 8):
        assert batch.images.shape == (6, 3, 8, 8)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [int(table.labels[row]) for row in rows(batch)]


def test_training_reads_the_stream_over_the_border_of_an_epoch(table: Index) -> None:
    read = [row for batch in training(table, USUAL, 10) for row in rows(batch)]
    stream = [int(row) for epoch in range(3) for row in order.permutation(4, epoch, IMAGES)]
    assert read == stream[:60]


def test_every_batch_says_how_many_images_the_run_has_seen_after_it(table: Index) -> None:
    assert [batch.images_seen for batch in training(table, WHOLE, 4, seen=100, rank=1, size=3)] == [118, 136, 154, 172]


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_train_on_what_one_rank_with_a_larger_batch_does(size: int, table: Index) -> None:
    alone = training(table, USUAL, 5, seen=11, batch=6 * size)
    ranks = [training(table, USUAL, 5, seen=11, rank=rank, size=size) for rank in range(size)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert {part.images_seen for part in parts} == {whole.images_seen}


def test_a_run_that_goes_on_sees_what_it_would_have_seen(table: Index) -> None:
    through = training(table, USUAL, 8)
    again = training(table, USUAL, 5, seen=through[2].images_seen)
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


def test_a_planned_flip_is_in_the_picture(table: Index) -> None:
    always, never = (Augmentation(area=(1, 1), aspect=(1, 1), flip=rate) for rate in (1, 0))
    (mirrored,), (straight,) = training(table, always, 1), training(table, never, 1)
    assert torch.equal(mirrored.images, straight.images.flip(3))
    assert (straight.images[:, 1].diff(dim=2) > 0).all()  # green rises to the right


def test_plans_need_no_image(table: Index, tmp_path: Path) -> None:
    elsewhere = Index(tmp_path, table.classes, table.paths, table.labels, table.heights, table.widths)
    plans = loader.training_plans(elsewhere, USUAL, seed=4, images_seen=0, rank=0, size=2, batch_size=3)
    assert [plan.images_seen for plan in islice(plans, 3)] == [6, 12, 18]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_evaluation_sees_each_image_once_however_it_is_cut(size: int, batch: int, table: Index) -> None:
    seen = []
    for rank in range(size):
        for part in evaluation(table, rank=rank, size=size, batch=batch):
            assert 1 <= len(part.labels) <= batch
            assert part.labels.tolist() == [int(table.labels[row]) for row in rows(part)]
            seen += rows(part)
    assert seen == list(range(IMAGES))


def test_a_rank_without_an_image_evaluates_nothing(table: Index) -> None:
    assert evaluation(table, rank=0, size=IMAGES + 1, batch=4) == []


def test_evaluation_shows_the_unmirrored_centre(table: Index) -> None:
    (batch,) = evaluation(table, rank=0, size=1, batch=IMAGES)
    green = batch.images[:, 1].mean((0, 1))  # the window is 4 … 36 of 40, so the first of 8 columns is 4 … 8
    torch.testing.assert_close(green, torch.arange(8) * 24 + 33.0, atol=1.5, rtol=0)
