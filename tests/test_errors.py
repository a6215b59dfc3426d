"""The exception tree, its exit codes and its message of one line."""

import re
import signal
from collections.abc import Iterator

import pytest

from hvdtrain import errors
from hvdtrain.errors import ConfigError, HvdtrainError, PeerLost, Stopped


def tree(error: type[HvdtrainError] = HvdtrainError) -> Iterator[type[HvdtrainError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == "hvdtrain.errors":
            yield from tree(child)


def test_the_docstring_draws_the_tree_with_its_exit_codes() -> None:
    drawn = dict(re.findall(r"^[\s├└─]*(\w+) +(\d+)\b", errors.__doc__ or "", re.MULTILINE))
    assert {name: int(code) for name, code in drawn.items()} == {error.__name__: error.exit_code for error in tree()}


def test_exit_codes_differ_and_mean_nothing_else() -> None:
    codes = [error.exit_code for error in tree()]
    assert len(set(codes)) == len(codes) == 10
    assert not set(codes) & {0, 126, 127, 130, 141}


@pytest.mark.parametrize("error", list(tree()))
def test_a_remedy_follows_the_message(error: type[HvdtrainError]) -> None:
    assert str(error("what went wrong")) == "what went wrong"
    mended = error("what went wrong", remedy="hvdtrain doctor")
    assert str(mended) == "what went wrong → hvdtrain doctor"
    assert mended.remedy == "hvdtrain doctor"


def test_who_is_stopped_ends_as_if_the_signal_had_killed_it() -> None:
    assert Stopped("x", by=signal.SIGUSR2, remedy="y").exit_code == 128 + 12
    assert str(Stopped("x", by=signal.SIGUSR2, remedy="y")) == "x → y"
    assert Stopped.exit_code == 143


def test_a_kind_of_error_is_caught_as_itself_and_as_ours() -> None:
    with pytest.raises(HvdtrainError):
        raise ConfigError("x")
    assert not issubclass(PeerLost, ConfigError)
