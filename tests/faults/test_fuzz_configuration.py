"""Configurations of chance: a file or a command line is a configuration, or one short line for each mistake."""

import argparse
import random
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

from hvdtrain.config.load import MOST_MISTAKES, Parser, add_options, from_file, from_options, to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.config.yaml_file import presets
from hvdtrain.errors import ConfigError

from .tally import Times, Trials

LONGEST = 500

TEXTS = [
    to_yaml(Config()).encode(),
    *((resources.files("hvdtrain.config") / "presets" / f"{name}.yaml").read_bytes() for name in presets()),
]
ODD = [
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"!!python/name:os.system ",
        b"? ",
        b"- ",
        b"[",
        b"{",
        b"}",
        b"|\n",
        b">",
        b"%",
    ),
    *(b"9" * 5000, b"1e999", b".nan", b"-.inf", b"0x" + b"f" * 5000, b"1:59:59", b"null", b"~", b"2001-99-99", b"yes"),
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\t",
        b"\r",
        b"\n---\n",
        b"\n...\n",
        b"'",
        b'"\\x00"',
        b"\x85",
    ),
]
VALUES = [
    *(
        "",
        "null",
        "none",
        "true",
        "1",
        "-1",
        "0",
        "1e-3",
        "1e999",
        "nan",
        "inf",
        "9" * 5000,
        "1.5",
        "[]",
        "{}",
        "[[0,128]]",
    ),
    *(
        "[[",
        "]]",
        ",",
        '{"a":1}',
        "a,b",
        "'",
        '"',
        "\\",
        "\udcff",
        "é\n",
        " ",
        "0.1,1",
        "[0.1,[1]]",
        "=",
        "--",
        "-x",
        "x" * 9999,
    ),
    *("resnet8", "cosine", "bf16", "images", "0x10", "1_000", "٣", "[30,", "1" * 400, "[" * 5000, "/", "..", "a/b"),
]


def is_a_configuration(load: Callable[[], Config], again: Path) -> bool:
    """Or else short lines; anything else fails."""
    try:
        config = load()
    except ConfigError as error:
        lines = str(error).split("\n")
        assert all(lines), lines
        assert len(lines) <= MOST_MISTAKES + 1, len(lines)
        assert max(map(len, lines)) < LONGEST, max(lines, key=len)
        return False
    again.write_text(to_yaml(config), encoding="utf-8")
    assert from_file(again) == config
    assert from_file(again).digest() == config.digest()
    return True


def mutated(text: bytes, draw: random.Random) -> bytes:
    """With some bytes flipped, removed, doubled or put in, or lines in another place."""
    for _ in range(draw.choice([1, 1, 1, 2, 5, 20])):
        at = draw.randrange(len(text) + 1)
        until = min(len(text), at + draw.choice([1, 1, 5, 50]))
        match draw.randrange(6):
            case 0:
                text = text[:at] + bytes(byte ^ 1 << draw.randrange(8) for byte in text[at:until]) + text[until:]
            case 1:
                text = text[:at] + text[until:]
            case 2:
                text = text[:at] + text[at:until] * 2 + text[until:]
            case 3:
                text = text[:at] + draw.choice(ODD) + text[at:]
            case 4:
                lines = text.splitlines(keepends=True)
                draw.shuffle(lines)
                text = b"".join(lines)
            case _:  # a value in the place of another
                lines = text.splitlines(keepends=True) or [b"\n"]
                line = draw.randrange(len(lines))
                lines[line] = lines[line].partition(b":")[0] + b": " + draw.choice(ODD) + b"\n"
                text = b"".join(lines)
    return text


def test_files_with_a_few_changes(trials: Trials, times: Times, tmp_path: Path) -> None:
    file, again = tmp_path / "c.yaml", tmp_path / "again.yaml"
    with trials("bytes of a configuration changed") as tally:
        outcomes = set()
        for seed in range(times(1000, 4000)):
            draw = random.Random(seed)
            with tally.one(f"seed {seed}"):
                file.write_bytes(mutated(draw.choice(TEXTS), draw))
                outcomes.add(is_a_configuration(lambda: from_file(file), again))
        assert outcomes == {True, False}


def test_options_of_chance(trials: Trials, times: Times, tmp_path: Path) -> None:
    parser = Parser(prog="hvdtrain train")
    source = add_options(parser)
    names = sorted(option for action in parser._actions for option in action.option_strings if option.startswith("--"))
    names.remove("--help")

    def load(options: list[str]) -> Config:
        given, unknown = parser.parse_known_args(options, argparse.Namespace())
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        return from_options(source, given)

    with trials("options of a command line at random") as tally:
        outcomes = set()
        for seed in range(times(2000, 8000)):
            draw = random.Random(seed)
            options: list[str] = []
            for _ in range(draw.choice([1, 1, 1, 2, 4])):
                name = draw.choice(names)
                value = draw.choice([*VALUES, "".join(chr(draw.randrange(1, 256)) for _ in range(draw.randrange(6)))])
                if draw.random() < 0.02:
                    name += draw.choice(["x", ".y", "\n", "\udcff"])
                options += [f"{name}={value}"] if draw.random() < 0.5 else [name, value]
            with tally.one(f"seed {seed}"):
                outcomes.add(is_a_configuration(partial(load, options), tmp_path / "again.yaml"))
        assert outcomes == {True, False}
