"""Numbers looked up by key. The golden values are every past run's crops and orders: they never change."""

import numpy as np
import pytest

from hvdtrain.data import keyed

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(word: int) -> int:
    """The finaliser as Steele, Lea and Flood print it, in whole numbers without bound."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def test_the_finaliser_is_splitmix64s() -> None:
    # the generator's published first three outputs for seed 0
    state = np.array([i * GOLDEN & MASK for i in (1, 2, 3)], np.uint64)
    with np.errstate(over="ignore"):
        mixed = keyed._mix(state)
    assert [int(word) for word in mixed] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_the_words_of_a_key_never_change() -> None:
    assert [int(word) for word in keyed.words(0, np.arange(4))] == [
        0x9ABABB68568302B9,
        0x82A669CABC948E24,
        0xAC4F6BFABD81A050,
        0xF5544B4853DD42CE,
    ]
    assert int(keyed.words(0)) == 0xA706DD2F4D197E6F
    assert int(keyed.words(2**63 + 5, 7)) == 0xD5625EEFD78A3E19


def test_the_numbers_of_a_key_never_change() -> None:
    assert keyed.uniform(1, 2, 3, np.arange(3)).tolist() == [0.9798315691173867, 0.3941665541757071, 0.6966967674000556]


@pytest.mark.parametrize("key", [(0,), (1, 2, 3), (2**64 - 1, 0, 5), (12345, 2**40)])
def test_a_word_is_its_definition_in_exact_arithmetic(key: tuple[int, ...]) -> None:
    word = 0
    for part in key:
        word = splitmix64((word + GOLDEN + splitmix64((part + GOLDEN) & MASK)) & MASK)
    assert int(keyed.words(*key)) == word
    assert float(keyed.uniform(*key)) == (word >> 11) / 2**53


def test_the_order_and_the_number_of_the_keys_parts_matter() -> None:
    keys = [(1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (1,), (2,), (1, 1), (2, 2), (3,), (0, 3)]
    assert len({int(keyed.words(*key)) for key in keys}) == len(keys)


def test_parts_broadcast_and_each_entry_is_what_its_own_key_gives() -> None:
    words = keyed.words(5, np.arange(4)[:, None], np.arange(3))
    assert words.shape == (4, 3)
    assert [[int(keyed.words(5, row, column)) for column in range(3)] for row in range(4)] == words.tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, np.uint64])
def test_the_type_of_a_part_does_not_matter(dtype: type) -> None:
    np.testing.assert_array_equal(keyed.words(1, np.arange(5).astype(dtype)), keyed.words(1, np.arange(5)))


@pytest.mark.parametrize("part", ["first", "middle", "last"])
def test_neighbouring_keys_give_uniform_numbers(part: str) -> None:
    run = np.arange(100_000)
    numbers = {"first": keyed.uniform(run, 1), "middle": keyed.uniform(3, run, 0), "last": keyed.uniform(7, 1, run)}[
        part
    ]
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
    chi_square = ((counts - 1000) ** 2 / 1000).sum()  # 99 degrees of freedom: mean 99, standard deviation 14
    assert 50 < chi_square < 160


def test_neighbouring_keys_give_unrelated_numbers() -> None:
    grid = keyed.uniform(np.arange(300)[:, None], np.arange(300))
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]) < 0.01
    assert len(np.unique(grid)) == grid.size
