"""A file that is no configuration, however large, deep or odd, is one short line, soon and without much memory."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hvdtrain.config.load import from_file
from hvdtrain.errors import ConfigError
from tests.config.test_load import refused as refused_options

SECONDS = 20  # of a processor
MEMORY = 2 << 30
LETTERS = "abcdefghi"

LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(LETTERS))
MERGES = "a: &a {x: 1}\n" + "".join(f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in pairwise(LETTERS))


def refuse_large_things() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def refused(config: str, folder: Path) -> str:
    """The one line that `hvdtrain config` prints of it."""
    ran = subprocess.run(
        [Path(sys.executable).with_name("hvdtrain"), "config", "--config", config],
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=refuse_large_things,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("hvdtrain: ")
    assert len(line) < 500
    return line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS, "*a: write the value itself, aliases are not read"),
        (MERGES, "aliases are not read"),
        ("optim: &o {decay_epochs: *o}", "aliases are not read"),
        ("data: " + "[" * 30_000, "nested too deep"),
        ("data: " + "{a: " * 10_000, "nested too deep"),
        ("- " * 30_000, "nested too deep"),
        ("#" * 2_000_000, "got more than 65,536 bytes"),
        ("seed: " + "9" * 60_000, "not YAML"),
        ("seed: 0x" + "f" * 60_000, "seed = a number of about "),
        ("epochs: 1:1" + ":59" * 20_000 + ".5", "not YAML"),
        ("epochs: 1" + ":59" * 20_000, "epochs = a number of about "),
        ("seed: [" + "9" * 4000 + "]", "seed = ["),
        ("run: {name: 'a" + "b" * 60_000 + "\\0'}\nseed: x", "seed = x"),
        ('run: {name: "a\\0b"}', "run.name = 'a\\x00b': expected UTF-8 without a zero byte"),
        ("seed: \0", "not YAML"),
        ("optim: {decay_epochs: [" + "x," * 20_000 + "]}", "more mistakes"),
        ("data: {? " + "a" * 60_000 + " : 1}", "unknown setting data.aaaa"),
        ("? " + "a" * 60_000 + "\n: 1", "unknown setting aaaa"),
        ("a" * 60_000 + ": 1", "not YAML"),
        ("a b\nc" * 1000, "expected a mapping of settings, got a str"),
        ("!" + "a" * 60_000 + " 1", "not YAML"),
        ("seed: !!int ''", "not YAML"),
        ("seed: !!bool x", "not YAML"),
        ("seed: 2001-13-13", "not YAML"),
        ("seed: !!timestamp x", "not YAML"),
        ("{" + ", ".join(f"a{n}: 1" for n in range(6000)) + "}", "unknown setting a0"),
    ],
    ids=lambda text: text[:24].replace("\n", " "),
)
def test_a_text(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        from_file(tmp_path / "c.yaml")
    lines = str(error.value).splitlines()
    assert message in str(error.value)
    assert len(lines) <= 21
    assert max(map(len, lines)) < 500


@pytest.mark.parametrize("content", [LAUGHS, MERGES, "data: " + "[" * 30_000, "#" * 300_000_000], ids=LETTERS[:4])
def test_what_is_made_to_fill_memory_does_not(content: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(content)
    refused("c.yaml", tmp_path)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (lambda folder: "/dev/zero", "expected a file, got a pipe or a device"),
        (lambda folder: str(folder), "Is a directory"),
        (lambda folder: os.mkfifo(folder / "pipe") or "pipe", "expected a file, got a pipe or a device"),
        (lambda folder: (folder / "b").write_bytes(b"seed: \xff") and "b", "not text: invalid start byte at byte 6"),
        (lambda folder: "n" * 5000, "File name too long"),
        (lambda folder: "a\nb", "No such file or directory"),
    ],
    ids=["device", "folder", "pipe", "bytes", "name", "lines"],
)
def test_a_place(place: Callable[[Path], str], message: str, tmp_path: Path) -> None:
    assert message in refused(place(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "[" * 100_000], "data = [[["),
        (["--data.train_sizes", "[" * 100_000], "data.train_sizes = [[["),
        (["--" + "x" * 100_000], "unknown option --xxx"),
        (["--seed", "9" * 100_000], "seed = 999"),
        (["--run.name", "\udcff"], "run.name = '\\udcff'"),
        (["--data.dir", "\udcff"], "data.dir = '\\udcff': expected UTF-8 without a zero byte"),
        (["--precision", "y\n" * 1000], "precision = 'y\\ny"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_option(options: list[str], message: str) -> None:
    line = refused_options(*options)
    assert message in line
    assert len(line) < 500
    assert "\n" not in line
