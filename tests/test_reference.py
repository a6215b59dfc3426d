"""docs/reference/ is what the program says of itself."""

import argparse
from collections.abc import Callable

import pytest

from hvdtrain.config.schema import Config
from hvdtrain.metrics.registry import Metrics, RunMetrics
from hvdtrain.metrics.series import rows

from . import reference
from .pages import DOCS

FOLDER = DOCS / "reference"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("configuration.md", reference.configuration),
        ("cli.md", reference.command_line),
        ("metrics.md", reference.metrics),
    ],
)
def test_a_reference_is_as_it_is_written_now(
    name: str, written: Callable[[], str], golden: Callable[..., None]
) -> None:
    golden(FOLDER / name, written())


def test_every_setting_is_there_once_with_its_text_and_default() -> None:
    text = reference.configuration()
    for name in Config().settings():
        assert text.count(f"| `--{name}` |") == 1
    assert '| `--optim.name` | `sgd`, `lars` | `"sgd"` | sgd: with momentum.' in text
    assert (
        "| `--data.crop_area` | [number more than 0 and at most 1, number more than 0 and at most 1] | `[0.08, 1.0]`"
        in text
    )
    assert "| `--max_steps` | integer at least 1 or null | `null` |" in text
    assert all(line.count("|") - line.count("\\|") == 5 for line in text.splitlines() if line.startswith("| `"))


def test_every_series_is_there_once() -> None:
    text = reference.metrics()
    for row in (*rows(Metrics).values(), *rows(RunMetrics).values()):
        assert text.count(f"| `{row.exported}` |") == 1


def test_every_verb_and_each_option_of_its_own_is_there() -> None:
    text = reference.command_line()
    for name, parser in reference.programs().items():
        _, _, chapter = text.partition(f"\n## {name}\n")
        chapter = chapter.partition("\n## ")[0]
        assert chapter, name
        for option, action in parser._option_string_actions.items():
            of_a_run = reference.takes_settings(parser) and action.dest.split(".")[0] in Config.model_fields
            if not of_a_run and action.help != argparse.SUPPRESS and option not in ("-h", "--help", "--version"):
                assert option in chapter, f"{name} {option}"
