"""Both decoders' pictures of natural photographs, held to torchvision's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hvdtrain.bench import photos
from hvdtrain.data import loader, scan
from hvdtrain.data.dali import DaliDecoder
from hvdtrain.data.decoder import Decoder, Pictures
from hvdtrain.data.index import Index
from hvdtrain.data.loader import Augmentation, Batch, Plan, Source
from hvdtrain.data.reference import ReferenceDecoder
from hvdtrain.data.storage import storage
from hvdtrain.torchvision import load

IMAGES = 48
CPU = torch.device("cpu")
GREY_LEVELS = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # mean and std that leave pixels as they are


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    photos.write(root, images=IMAGES)
    return root / "train"


@pytest.fixture(scope="module")
def index(folder: Path) -> Index:
    return scan.scan(folder, workers=2)


def decoders(size: int) -> tuple[Decoder, Decoder]:
    pictures = Pictures(size, *GREY_LEVELS)
    dali = DaliDecoder(
        batch_size=IMAGES,
        pictures=pictures,
        decode_on_gpu=False,
        device=CPU,
        threads=2,
        prefetch=1,
        by_name=True,
        largest=(600, 800),
    )
    return dali, ReferenceDecoder(pictures=pictures, device=CPU, threads=2, prefetch=1, by_name=True)


def both(folder: Path, index: Index, plan: Plan, size: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """DALI's and torchvision's pictures of a plan, (n, 3, size, size) in grey levels."""
    batches: list[Batch] = []
    for decoder in decoders(size):
        batches += loader.batches([plan], Source(index, storage(folder, index, threads=1), decoder))
    ours, theirs = (batch.images.numpy() for batch in batches)
    return ours, theirs


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def test_a_decoded_window_is_equal_in_every_pixel(folder: Path, index: Index) -> None:
    rng = np.random.default_rng(0)
    corner = (rng.random((IMAGES, 2)) * (np.stack([index.heights, index.widths], 1) - 224)).astype(np.int64)
    windows = np.concatenate([corner, np.full((IMAGES, 2), 224)], axis=1).astype(np.float32)
    rows = np.arange(IMAGES)
    plan = Plan(rows, rows * 0, rows, windows, windows.astype(np.int32), rng.random(IMAGES) < 0.5, images_seen=0)
    ours, theirs = both(folder, index, plan)
    np.testing.assert_array_equal(ours.round(3), theirs.round(3))
    for row in range(0, IMAGES, 7):  # and torchvision's are Pillow's own
        top, left = corner[row]
        pixels = np.asarray(opened(folder / index.names[row]))[top : top + 224, left : left + 224]
        shown = theirs[row].transpose(1, 2, 0)
        np.testing.assert_array_equal(shown[:, ::-1].round() if plan.flips[row] else shown.round(), pixels)


def test_training_pictures_are_those_of_torchvisions_resized_crop(folder: Path, index: Index) -> None:
    functional = load().transforms.v2.functional
    usual = Augmentation((0.08, 1), (3 / 4, 4 / 3), 0.5)
    plans = loader.training_plans(index, usual, seed=1, images_seen=0, rank=0, size=1, batch_size=IMAGES)
    for _, plan in zip(range(3), plans, strict=False):
        ours, pillows = both(folder, index, plan)
        theirs = []
        for row, window, flip in zip(plan.samples, plan.windows.astype(int).tolist(), plan.flips, strict=True):
            cut = functional.resized_crop(opened(folder / index.names[row]), *window, [224, 224])
            theirs.append(np.asarray(functional.hflip(cut) if flip else cut, np.float32).transpose(2, 0, 1))
        np.testing.assert_array_equal(pillows.round(3), theirs)
        apart = np.abs(ours - theirs)
        assert apart.mean() < 0.05
        assert apart.max() <= 1.001
        assert np.abs(ours - theirs[::-1]).mean() > 20  # they are different pictures


@pytest.mark.parametrize(("resize", "size"), [(256 / 224, 224), (1.0, 224), (256 / 224, 160), (1.5, 64)])
def test_evaluation_pictures_are_those_of_torchvisions_resize_and_centre_crop(
    folder: Path, index: Index, resize: float, size: int
) -> None:
    transforms = load().transforms.v2
    usual = transforms.Compose([transforms.Resize(round(resize * size)), transforms.CenterCrop(size)])
    (plan,) = loader.evaluation_plans(index, image_size=size, resize=resize, rank=0, size=1, batch_size=IMAGES)
    ours, pillows = both(folder, index, plan, size)
    theirs = np.stack([np.asarray(usual(opened(folder / index.names[row])), np.float32) for row in range(IMAGES)])
    theirs = theirs.transpose(0, 3, 1, 2)
    assert np.abs(ours - theirs).mean() < 0.05
    assert np.abs(pillows - theirs).mean() < 0.05
