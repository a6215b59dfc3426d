"""Random numbers that are looked up by a key instead of drawn from a generator, so that no one's progress changes them.

The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number
Generators"). Being arithmetic on 64-bit words, its numbers are the same for every version of every library.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def words(*key: ArrayLike, after: ArrayLike = 0) -> NDArray[np.uint64]:
    """One 64-bit word for each entry of the key's broadcast parts, which are whole numbers from 0 on.

    Args:
        after: the words of a key that this one goes on from.

    >>> words(0, np.arange(3)).shape
    (3,)
    >>> int(words(1, 2)) == int(words(2, 1))
    False
    >>> int(words(1, 2, 3)) == int(words(3, after=words(1, 2)))
    True
    """
    word: NDArray[np.uint64] = np.asarray(after, np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is the point
        for part in key:
            word = _mix(word + _GOLDEN + _mix(np.asarray(part).astype(np.uint64) + _GOLDEN))
    return word


def uniform(*key: ArrayLike, after: ArrayLike = 0) -> NDArray[np.float64]:
    """Numbers in [0, 1), of 53 bits."""
    fractions: NDArray[np.float64] = (words(*key, after=after) >> np.uint64(11)) * 2.0**-53
    return fractions


def _mix(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = word ^ (word >> np.uint64(31))
    return mixed
