"""Text for people, by rank."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvdtrain import log


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    yield
    for handler in log.logger.handlers[:]:
        log.logger.removeHandler(handler)
        handler.close()
    log.logger.setLevel(logging.NOTSET)
    log.logger.propagate = True


def test_rank_0_speaks_and_the_others_warn_under_their_number(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(0)
    log.logger.info("hello")
    assert capsys.readouterr() == ("", "hello\n")
    log.configure(3)
    log.logger.info("hello")
    log.logger.warning("careful")
    assert capsys.readouterr() == ("", "[rank 3] careful\n")


def test_every_rank_has_a_file_with_everything(tmp_path: Path) -> None:
    for rank in (0, 3):
        log.configure(rank, log_dir=tmp_path / "logs")
        log.logger.info("hello %d", rank)
        log.logger.warning("careful")
    for rank in (0, 3):
        lines = (tmp_path / "logs" / f"rank-{rank}.log").read_text().splitlines()
        assert [line.split(f"rank {rank} ")[1] for line in lines] == [f"INFO hello {rank}", "WARNING careful"]


def test_a_run_that_goes_on_adds_to_its_file(tmp_path: Path) -> None:
    for _ in range(2):
        log.configure(0, log_dir=tmp_path)
        log.logger.info("hello")
    assert len((tmp_path / "rank-0.log").read_text().splitlines()) == 2


def test_setting_up_twice_says_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(0)
    log.configure(0)
    log.logger.info("hello")
    assert capsys.readouterr().err == "hello\n"
