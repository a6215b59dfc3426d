"""Which rows a list means, wherever and in whatever order the images lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.data.index import Index, Names
from hvdtrain.data.quarantine import rows_of


def index(classes: list[str], images: list[tuple[int, str]]) -> Index:
    """Rows sorted by label and name, as every index is."""
    rows = sorted(set(images))
    ones = np.ones(len(rows), np.int32)
    labels = np.array([label for label, _ in rows], np.int64)
    return Index(tuple(classes), Names.of(name for _, name in rows), labels, ones.astype(np.int64), ones, ones)


words = st.text("ab-/é", min_size=1, max_size=3).filter(lambda text: "/" not in text)


@given(st.sets(st.tuples(words, words), min_size=1), st.data())
def test_listed_images_are_found_and_no_others(images: set[tuple[str, str]], data: st.DataObject) -> None:
    classes = sorted({name for name, _ in images})
    table = index(classes, [(classes.index(name), f"{name}/{file}") for name, file in images])
    chosen = data.draw(st.sets(st.integers(0, len(table) - 1)))
    listed = [f"train/{table.names[row]}" for row in chosen] + ["val/" + table.names[0], "train/b/gone.jpg", "trai"]
    assert rows_of(table, "train", listed) == sorted(chosen)


@pytest.mark.parametrize("names", [["1.jpg", "2.jpg", "3.jpg"], ["all/1.jpg", "all/2.jpg", "all/3.jpg"]])
def test_images_of_shards_whose_classes_are_no_folders_are_found(names: list[str]) -> None:
    table = index(["cat", "dog"], [(1, names[0]), (0, names[1]), (1, names[2])])
    assert [table.names[row] for row in rows_of(table, "val", [f"val/{names[2]}", f"val/{names[1]}"])] == [
        names[1],
        names[2],
    ]


def test_an_empty_list_means_no_row() -> None:
    assert rows_of(index(["c"], [(0, "c/1.jpg")]), "train", []) == []
