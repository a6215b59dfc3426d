"""In CI nothing may be left out in silence: only a test that needs a GPU may be skipped there, and it is counted."""

import faulthandler
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from hvdtrain.data import demo

from .faults.tally import Tally, Times, Trials, table
from .pages import TRIED, summary
from .trained import Digits, train_digits

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

TALLIES = pytest.StashKey[list[Tally]]()
END_SECONDS = 60
LEFT_TO_SOAK = pytest.StashKey[list[str]]()

# A busy machine is slow at times, which is no failure; and what CI tries is the same each time.
settings.register_profile("here", deadline=None, derandomize=IN_CI)
settings.load_profile("here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden records anew, to be read in the diff")
    parser.addoption("--soak", action="store_true", help="try every fault of tests/faults many times")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded images as files, for all tests: who changes one copies them first."""
    folder = tmp_path_factory.mktemp("digits")
    demo.write(folder)
    return folder


@pytest.fixture(scope="session")
def trained_digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return train_digits(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Callable[[Path, str], None]:
    """golden(path, text) fails unless the record at `path` is `text`, all of it; without a record it fails too."""

    def check(path: Path, text: str) -> None:
        if pytestconfig.getoption("--update-golden"):
            path.write_text(text)
        assert path.exists(), f"no record {path}: pytest --update-golden writes it"
        assert path.read_text() == text, f"{path} differs: pytest --update-golden writes it anew"

    return check


@pytest.fixture
def times(pytestconfig: pytest.Config) -> Times:
    return lambda few, many: many if pytestconfig.getoption("--soak") else few


@pytest.fixture
def trials(pytestconfig: pytest.Config) -> Trials:
    """What a trial raises is counted and goes on to the next; the end of the outer block fails if one was lost, or if
    none was tried."""

    @contextmanager
    def begin(fault: str) -> Iterator[Tally]:
        tally = Tally(fault)
        pytestconfig.stash.setdefault(TALLIES, []).append(tally)
        yield tally
        assert tally.tried, f"{fault}: nothing was tried"
        assert not tally.lost, f"{fault}: {len(tally.lost)} of {tally.tried} lost:\n" + "\n".join(tally.lost[:20])

    return begin


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        left = [item for item in items if item.get_closest_marker("soak")]
        config.stash[LEFT_TO_SOAK] = [item.nodeid for item in left]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    for item in [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    if IN_CI and report.skipped and not expected_failure and not item.get_closest_marker("gpu"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which fails in CI: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tallies := terminalreporter.config.stash.get(TALLIES, []):
        terminalreporter.write_line(table(tallies))
    if tried := terminalreporter.config.stash.get(TRIED, []):
        terminalreporter.write_line(summary(tried))
    if left := terminalreporter.config.stash.get(LEFT_TO_SOAK, []):
        terminalreporter.write_line("\n  ".join([f"{len(left)} tests left to make soak:", *left]))
    without_gpu = [report for report in terminalreporter.getreports("skipped") if "gpu" in report.keywords]
    terminalreporter.write_line(f"{len(without_gpu)} tests left out for want of a GPU")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """A thread that a test has left behind would keep the process from ending, for ever and without a word."""
    faulthandler.dump_traceback_later(END_SECONDS, exit=True)
