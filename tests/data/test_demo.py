"""The embedded digits are scikit-learn's, and are written the same each time."""

from configparser import ConfigParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hvdtrain.data import demo, scan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("digits")
    assert demo.write(folder) == {"train": 1433, "val": 364}
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.JPEG")}


def test_the_package_holds_exactly_scikit_learns_digits() -> None:
    digits = load_digits()
    with resources.as_file(resources.files("hvdtrain.data") / "digits.npz") as file, np.load(file) as ours:
        np.testing.assert_array_equal(ours["images"], digits.images)
        np.testing.assert_array_equal(ours["labels"], digits.target)
        assert ours["images"].dtype == ours["labels"].dtype == np.uint8


def test_the_package_says_where_the_digits_come_from_and_under_which_licence() -> None:
    text = (resources.files("hvdtrain.data") / "digits.txt").read_text()
    assert "UCI" in text
    assert "CC BY 4.0" in text
    assert "https://doi.org/10.24432/C50P49" in text


def test_both_files_are_package_data() -> None:
    root = Path(__file__).parents[2]
    setup = ConfigParser()
    setup.read(root / "setup.cfg")
    patterns = setup["options.package_data"]["hvdtrain.data"].split()
    found = {path.name for pattern in patterns for path in (root / "hvdtrain" / "data").glob(pattern)}
    assert found == {"digits.npz", "digits.txt"}


def test_every_digit_is_written_once_under_its_class(folder: Path) -> None:
    written = {name: Path(name).parts for name in contents(folder)}
    assert len(written) == 1797
    labels = {parts[2]: int(parts[1]) for parts in written.values()}
    assert [labels[f"digit_{number:04}.JPEG"] for number in range(1797)] == load_digits().target.tolist()


def test_all_ten_classes_are_in_both_parts_in_like_shares(folder: Path) -> None:
    for part, images in (("train", 1433), ("val", 364)):
        table = scan.scan(folder / part, workers=2)
        assert table.classes == tuple("0123456789")
        counts = np.bincount(table.labels, minlength=10)
        assert counts.sum() == images
        assert counts.min() > 0.9 * images / 10
        assert set(table.heights) == set(table.widths) == {32}


def test_a_second_writing_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    demo.write(tmp_path)
    assert contents(tmp_path) == contents(folder)


def test_a_picture_shows_its_digit(folder: Path) -> None:
    digits = load_digits().images
    for path in sorted(folder.rglob("*.JPEG"))[::100]:
        with Image.open(path) as image:
            shown = np.asarray(image.resize((8, 8), Image.Resampling.BOX), np.float64) * 16 / 255
        assert np.abs(shown - digits[int(path.stem.split("_")[1])]).mean() < 1
