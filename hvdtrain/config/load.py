"""Presets, YAML files and dotted options -> Config, or a ConfigError of one line per mistake."""

import argparse
import difflib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

from hvdtrain.config.checks import shown
from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError

MOST_BYTES = 1 << 16  # of a configuration; a whole one has 3,000
MOST_MISTAKES = 20  # told of at once
LINE = 400  # characters of a message at most, its remedy aside


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line that name the nearest valid option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            given = (unknown.split() or [repr(unknown)])[0]
            near = _nearest(given.split("=")[0], [o for a in self._actions for o in a.option_strings])
            message = f"unknown option {shown(given)}{near}"
        raise ConfigError(shown(message, LINE), remedy=f"{self.prog} --help")


def add_options(parser: Parser) -> CliSettingsSource[Config]:
    """Give `parser` --config and one dotted option for each field of the schema."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML file, or a preset: {', '.join(presets())}. Options override it"
    )
    return CliSettingsSource[Config](Config, root_parser=parser, cli_parse_args=False)


def from_options(source: CliSettingsSource[Config], options: argparse.Namespace) -> Config:
    """The configuration of a command line parsed by the parser that `add_options` extended.

    Raises:
        ConfigError: an unknown key, a wrong type or value, or settings that exclude each other.
    """
    values = read_yaml(options.config) if options.config else {}
    given = {key: value for key, value in vars(options).items() if "." in key or key in _FIELDS}
    try:
        return _validate(values, _cli_settings_source=source(parsed_args=argparse.Namespace(**given)))
    except (SettingsError, RecursionError):
        texts = {key: text for key, value in given.items() if (text := _not_json(key, value))}
        wrong = "; ".join(f"{key} = {shown(text)}" for key, text in list(texts.items())[:2])
        raise ConfigError(f"{wrong}: expected a list such as [0.08,1] or [[0,128],[10,176]]", remedy=_HELP) from None


def from_file(path: Path) -> Config:
    """The configuration that a run directory keeps in config.yaml."""
    return _validate(read_yaml(str(path)))


def presets() -> list[str]:
    folder = resources.files("hvdtrain.config") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_yaml(name: str) -> dict[str, Any]:
    """The mapping in a YAML file, or in the preset of that name.

    Raises:
        ConfigError: there is none, or it is too large, too deep or too odd to be a configuration.
    """
    preset = resources.files("hvdtrain.config") / "presets" / f"{name}.yaml"
    where = f"--config {shown(name)}"
    try:
        values = yaml.load(preset.read_text(encoding="utf-8") if name in presets() else _text(Path(name)), _Loader)
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror or error}; presets are {', '.join(presets())}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not text: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not a configuration: nested too deep") from None
    except (yaml.YAMLError, *_ODD) as error:
        raise ConfigError(f"{where}: not YAML: {shown(' '.join(str(error).split()), LINE // 2)}") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"{where}: expected a mapping of settings, got a {type(values).__name__}")
    return values or {}


def _text(path: Path) -> str:
    """Of a regular file: a pipe would be waited for, and a device has no end.

    Raises:
        OSError: it cannot be read, is no file, or too long.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(None, "Is a directory")
        if not stat.S_ISREG(mode):
            raise OSError(None, "expected a file, got a pipe or a device")
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(None, f"expected a configuration, got more than {MOST_BYTES:,} bytes")
    return content.decode("utf-8")


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


_HELP = "hvdtrain train --help"
_FIELDS = frozenset(Config.model_fields)
_SECTIONS = frozenset(name for name, field in Config.model_fields.items() if isinstance(field.default, BaseModel))


# What YAML's own conversions raise over a number of 5,000 digits, a 13th month, `!!int ''`, base 60 beyond all floats.
_ODD = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


class _Loader(yaml.SafeLoader):
    """YAML's safe subset without aliases, of which a few lines unfold to gigabytes; and with a key that stands twice in
    a mapping refused instead of the last one taken."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None,
                None,
                f"*{shown(event.anchor, 40)}: write the value itself, aliases are not read",
                event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.most_common(1):
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _validate(values: dict[str, Any], **sources: Any) -> Config:
    for key in values:
        if key not in _FIELDS:
            raise ConfigError(f"unknown setting {shown(key)}{_nearest(key, list(_keys(Config)))}", remedy=_HELP)
    try:
        config = Config(**sources, **values)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        lines = [shown(_explain(error), LINE) for error in errors[:MOST_MISTAKES]]
        lines += [f"and {len(errors) - MOST_MISTAKES} more mistakes"] if len(errors) > MOST_MISTAKES else []
        raise ConfigError("\n".join(lines), remedy=_HELP) from None
    if wrong := list(_unwritable(config.model_dump())):
        raise ConfigError("\n".join(wrong[:MOST_MISTAKES]), remedy=_HELP)
    return config


def _unwritable(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """A message for each setting that config.yaml cannot have, or the system."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _unwritable(value, f"{prefix}{key}.")
        elif isinstance(value, str | Path) and not _is_plain(str(value)):
            yield f"{prefix}{key} = {shown(str(value))}: expected UTF-8 without a zero byte"
        elif isinstance(value, int) and value >= 2**63:
            yield f"{prefix}{key} = {shown(value)}: expected less than 2^63"


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _explain(error: Any) -> str:
    key = shown(".".join(str(part) for part in error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown setting {key}{_nearest(key, list(_keys(Config)))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if not key:
        return message
    message = message.removeprefix("Input should be ").split(", unable to")[0]
    return f"{key} = {shown(error['input'])}: expected {message}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = next((t for t in (field.annotation, *get_args(field.annotation)) if _is_section(t)), None)
        yield from _keys(section, f"{prefix}{name}.") if section else (f"{prefix}{name}",)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _not_json(key: str, value: Any) -> str | None:
    """The text of an option that must be JSON, being a list or a whole section, and is not."""
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    if not isinstance(text, str) or not (set(text) & set(",[{") or key in _SECTIONS):
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return None


def _nearest(given: Any, valid: list[str]) -> str:
    close = difflib.get_close_matches(str(given)[:100], valid, n=1, cutoff=0.5)
    return f"; the nearest is {close[0]}" if close else ""
