"""The README's table of series."""

from collections.abc import Callable
from pathlib import Path

from hvdtrain.metrics import reference
from hvdtrain.metrics.registry import Metrics, RunMetrics
from hvdtrain.metrics.series import rows

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_the_table_as_it_is(golden: Callable[[Path, str], None]) -> None:
    golden(README, reference.written_into(README.read_text()))


def test_every_series_is_in_the_table_once() -> None:
    table = reference.table()
    for row in (*rows(Metrics).values(), *rows(RunMetrics).values()):
        assert table.count(f"| `{row.exported}` |") == 1


def test_the_rest_of_the_text_stays() -> None:
    old = f"before\n{reference.BEGIN}old\n{reference.END}after\n"
    assert reference.written_into(old) == f"before\n{reference.BEGIN}{reference.table()}{reference.END}after\n"
