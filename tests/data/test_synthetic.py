"""Noise in place of images: as many as ImageNet has, of no cost."""

import numpy as np
import pytest
import torch

from hvdtrain.data import synthetic
from hvdtrain.data.decoder import Pictures, Request
from hvdtrain.data.synthetic import NoiseDecoder, NoStorage

PICTURES = Pictures(size=8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def request(images: int) -> Request:
    window, decoded = np.zeros((images, 4), np.float32), np.zeros((images, 4), np.int32)
    return Request(inputs=[], windows=window, decoded=decoded, flips=np.zeros(images, np.bool_))


@pytest.mark.parametrize(("part", "images"), [("train", 1_281_167), ("val", 50_000)])
def test_there_are_as_many_images_and_classes_as_imagenet_has(part: str, images: int) -> None:
    table = synthetic.index(part)
    assert len(table) == len(table.names) == images
    assert len(set(table.classes)) == 1000
    assert table.classes == tuple(sorted(table.classes))
    assert {len(column) for column in (table.labels, table.sizes, table.heights, table.widths)} == {images}
    assert not table.unreadable.any()
    assert table.shards == ()


@pytest.mark.parametrize("part", ["train", "val"])
def test_every_class_has_its_share_in_order(part: str) -> None:
    labels = synthetic.index(part).labels
    assert labels.dtype == np.int64
    assert (labels.min(), labels.max()) == (0, 999)
    assert (np.diff(labels) >= 0).all()
    held = np.bincount(labels)
    assert held.max() - held.min() <= 1


def test_images_have_the_size_that_imagenet_has_most_often() -> None:
    table = synthetic.index("val")
    assert set(table.heights.tolist()) == {375}
    assert set(table.widths.tolist()) == {500}


def test_images_have_no_names_and_train_and_val_differ() -> None:
    table = synthetic.index("val")
    assert (table.names[0], table.names[49_999]) == ("", "")
    assert table.digest == synthetic.index("val").digest
    assert table.digest != synthetic.index("train").digest


def test_images_have_no_bytes() -> None:
    stored = NoStorage()
    assert stored.by_name is False
    assert stored.fetch(np.arange(3))() == []
    assert stored.place(7) == "synthetic image 7"


def test_every_batch_is_the_same_tensor() -> None:
    decoder = NoiseDecoder(batch_size=4, pictures=PICTURES, device=torch.device("cpu"))
    batches = list(decoder.decode(request(4) for _ in range(3)))
    assert len({batch.data_ptr() for batch in batches}) == 1
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    assert batches[0].shape == (4, 3, 8, 8)
    assert batches[0].is_contiguous(memory_format=torch.channels_last)
    assert batches[0].dtype == torch.float32


def test_a_smaller_batch_is_its_first_pictures() -> None:
    decoder = NoiseDecoder(batch_size=4, pictures=PICTURES, device=torch.device("cpu"))
    whole, part = decoder.decode([request(4), request(3)])
    assert torch.equal(part, whole[:3])
    assert part.data_ptr() == whole.data_ptr()


def test_pictures_are_noise_like_that_of_normalised_images_and_the_same_in_every_run() -> None:
    pictures = Pictures(size=64, mean=PICTURES.mean, std=PICTURES.std, dtype=torch.float16)
    first, second = (
        next(NoiseDecoder(batch_size=4, pictures=pictures, device=torch.device("cpu")).decode([request(4)]))
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert first.dtype == torch.float16
    assert abs(float(first.float().mean())) < 0.03  # 49,152 values: 6 standard deviations
    assert abs(float(first.float().std()) - 1) < 0.03


def test_making_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    NoiseDecoder(batch_size=2, pictures=PICTURES, device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_wrong_with_noise() -> None:
    decoder = NoiseDecoder(batch_size=1, pictures=PICTURES, device=torch.device("cpu"))
    assert decoder.fault(request(1)) is None
