"""Windows become pictures as Pillow makes them, and memory comes back only when nobody holds it."""

import numpy as np
import pytest
import torch
from PIL import Image

from hvdtrain.data.decoder import Pictures
from hvdtrain.data.resample import Memory, Resampler, single_threaded

CPU = torch.device("cpu")
SIZE = 24


def resampler(size: int = SIZE, threads: int = 2) -> Resampler:
    """Leaves pixels as they are."""
    return Resampler(Pictures(size, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)), device=CPU, threads=threads)


def windows(*sizes: tuple[int, int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def pictures(of: Resampler, given: list[np.ndarray], flips: list[bool] | None = None) -> torch.Tensor:
    ends = np.array([window.shape[:2] for window in given], np.float32)
    return of.pictures(given, np.zeros_like(ends), ends, np.array(flips or [False] * len(given)))


def test_a_picture_is_pillows_within_one_grey_level() -> None:
    given = windows((24, 24), (50, 31), (31, 200), (7, 9), (1, 1), (24, 48), (300, 3))
    found = pictures(resampler(), given)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for window, picture in zip(given, found, strict=True):
        theirs = np.asarray(Image.fromarray(window).resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
        apart = np.abs(picture.permute(1, 2, 0).numpy() - theirs)
        assert apart.max() <= 1.001
        assert apart.mean() < 0.3  # of noise, where every rounding is a toss; test_oracle.py has photographs
    assert torch.equal(found[0].permute(1, 2, 0).round(), torch.from_numpy(given[0]).float())


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("images", [1, 4, 9])
def test_each_picture_has_its_place_whoever_makes_it(threads: int, images: int) -> None:
    given = [np.full((30, 20, 3), 10 * i, np.uint8) for i in range(images)]
    found = pictures(resampler(threads=threads), given)
    assert [int(picture.min()) for picture in found] == [int(picture.max()) for picture in found]
    assert [round(float(picture.mean())) for picture in found] == [10 * i for i in range(images)]


def test_a_flip_mirrors_the_picture() -> None:
    given = windows((40, 50)) * 2
    straight, mirrored = pictures(resampler(), given, [False, True])
    assert torch.equal(mirrored, straight.flip(2))
    assert not torch.equal(mirrored, straight)


def test_what_is_shown_may_begin_between_two_pixels() -> None:
    (window,) = windows((60, 80))
    begin, end = np.array([[3.25, 10.5]], np.float32), np.array([[51.5, 60.75]], np.float32)
    (found,) = resampler().pictures([window], begin, end, np.array([False]))
    box = (10.5, 3.25, 60.75, 51.5)
    theirs = np.asarray(Image.fromarray(window).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box), np.float32)
    np.testing.assert_array_equal(found.permute(1, 2, 0).numpy().round(2), theirs)


def test_a_batch_that_is_kept_stays_as_it_is_and_one_that_is_dropped_gives_its_memory_back() -> None:
    of = resampler()
    first = pictures(of, windows((30, 30)))
    kept, copy = first[0, 1], first[0, 1].clone()  # a view of it is enough
    del first
    second = pictures(of, [np.zeros((30, 30, 3), np.uint8)])
    assert torch.equal(kept, copy)
    place = second.data_ptr()
    del second
    assert pictures(of, windows((9, 9))).data_ptr() == place


def test_memory_of_another_size_is_not_hoarded() -> None:
    memory = Memory()
    held = torch.from_numpy(memory.take((2, 3)))
    for size in range(10, 20):
        memory.take((size,))
    assert len(memory._arrays) == 2
    assert held.shape == (2, 3)


def test_the_pool_computes_on_one_thread_and_the_caller_as_before() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with single_threaded(3) as pool:
            assert set(pool.map(lambda _: torch.get_num_threads(), range(30))) == {1}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
