"""Presets, YAML files and dotted options -> Config, or a ConfigError of one line per mistake."""

import argparse
import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

from hvdtrain.config.checks import at_home, shown
from hvdtrain.config.schema import Config
from hvdtrain.config.yaml_file import LINE, presets, read_yaml
from hvdtrain.errors import ConfigError

MOST_MISTAKES = 20  # told of at once
PAIRS = "job.sbatch"  # the one setting that maps names to values


class Parser(argparse.ArgumentParser):
    """argparse, with errors of one line that name the nearest valid option, and settings left out of the usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def format_help(self) -> str:
        """Its first lines are the verb's own arguments: a hundred settings before what it does would hide that."""
        if not self._takes_settings() or self.usage:
            return super().format_help()
        own = [action for action in self._actions if action.dest.split(".")[0] not in _FIELDS]
        formatter = self._get_formatter()
        formatter.add_usage(None, own, self._mutually_exclusive_groups, " " * len("usage: "))
        self.usage = formatter.format_help().strip().replace("%", "%%") + " [--SETTING VALUE ...]"
        try:
            return super().format_help()
        finally:
            self.usage = None

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            given = (unknown.split() or [repr(unknown)])[0]
            message = self._unknown(given)
        raise ConfigError(shown(message, LINE), remedy=f"{self.prog} --help")

    def _takes_settings(self) -> bool:
        return any("--config" in action.option_strings for action in self._actions)

    def _unknown(self, given: str) -> str:
        if not given.startswith("-"):
            preset = f"; the preset is --config {given}" if self._takes_settings() and given in presets() else ""
            return f"unexpected argument {shown(given)}{preset}"
        name = given.split("=")[0]
        if name in ELSEWHERE and self._takes_settings():
            return f"unknown option {name}; here it is {ELSEWHERE[name]}"
        return f"unknown option {shown(given)}{_nearest(name, [o for a in self._actions for o in a.option_strings])}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action.choices, Mapping) and value not in action.choices:
            verbs = list(action.choices)
            kind, one_of = f"{action.metavar}".lower(), ", ".join(verbs)
            what = f"unknown {kind} {shown(value)}; expected one of {one_of} right after {self.prog}"
            self.error(what + _nearest(value, verbs))
        super()._check_value(action, value)


# What other trainers call a setting, and no likeness of letters finds.
ELSEWHERE = {
    **dict.fromkeys(("--lr", "--learning-rate", "--learning_rate"), "--optim.base_lr"),
    "--wd": "--optim.weight_decay",
    **dict.fromkeys(("-b", "--bs", "--batch"), "--data.batch_size"),
    **dict.fromkeys(("-j", "--num-workers", "--num_workers"), "--data.threads"),
    **dict.fromkeys(("--workers", "--gpus", "--np", "-np", "-n"), "the launcher's: mpirun -np N hvdtrain train"),
    **dict.fromkeys(("--amp", "--fp16"), "--precision fp16"),
    "--bf16": "--precision bf16",
    **dict.fromkeys(("-a", "--arch"), "--model.name"),
    **dict.fromkeys(("--data-path", "--dataset", "--train-dir"), "--data.dir"),
    **dict.fromkeys(("--out", "--output", "--output-dir", "--workspace"), "--run.dir"),
    **dict.fromkeys(("--ema", "--model-ema"), "--train.ema_decay"),
    **dict.fromkeys(("--cpu", "--no-cuda"), "CUDA_VISIBLE_DEVICES= in the environment"),
    "--preset": "--config",
    "--port": "--metrics.port",
}


def add_options(parser: Parser) -> CliSettingsSource[Config]:
    """Give `parser` --config and one dotted option for each field of the schema."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML file, or a preset: {', '.join(presets())}. Options override it"
    )
    source = CliSettingsSource[Config](Config, root_parser=parser, cli_parse_args=False)
    (elastic,) = (action for action in parser._actions if "--elastic" in action.option_strings)
    elastic.nargs, elastic.const = "?", '{"enabled": true}'  # the section's own option, alone, switches it on
    return source


def from_options(source: CliSettingsSource[Config], options: argparse.Namespace) -> Config:
    """The configuration of a command line parsed by the parser that `add_options` extended.

    Raises:
        ConfigError: an unknown key, a wrong type or value, or settings that exclude each other.
    """
    values = read_yaml(options.config) if options.config else {}
    given = {key: value for key, value in vars(options).items() if "." in key or key in _FIELDS}
    try:
        return at_home(_validate(values, _cli_settings_source=source(parsed_args=argparse.Namespace(**given))))
    except (SettingsError, RecursionError):
        texts = {key: text for key, value in given.items() if (text := _not_json(key, value))}
        if section := next((key for key in texts if key in _SECTIONS), ""):
            raise ConfigError(shown(_no_section(section, texts[section]), LINE), remedy=_HELP) from None
        if text := _not_pairs(given.get(PAIRS)):
            raise ConfigError(f"{PAIRS} = {shown(text)}: expected NAME=VALUE, such as qos=high", remedy=_HELP) from None
        wrong = "; ".join(f"{key} = {shown(text)}" for key, text in list(texts.items())[:2])
        raise ConfigError(f"{wrong}: expected a list such as [0.08,1] or [[0,128],[10,176]]", remedy=_HELP) from None


def from_file(path: Path) -> Config:
    """The configuration that a run directory keeps in config.yaml.

    Raises:
        ConfigError: there is none, or it is not one that this version takes.
    """
    return _validate(read_yaml(str(path)))


def to_yaml(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


_HELP = "hvdtrain train --help"
_FIELDS = frozenset(Config.model_fields)
_SECTIONS = frozenset(name for name, field in Config.model_fields.items() if isinstance(field.default, BaseModel))


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
    if error["type"] in ("model_type", "model_attributes_type") and key in _SECTIONS:
        return _no_section(key, error["input"])
    message = message.removeprefix("Input should be ").split(", unable to")[0]
    return f"{key} = {shown(error['input'])}: expected {message}"


def _no_section(key: str, given: Any) -> str:
    names = type(Config.model_fields[key].default).model_fields
    name = next((name for name in ("dir", "name") if name in names), next(iter(names)))
    return f"{key} = {shown(given)}: expected one of the settings in it, such as {key}.{name}"


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


def _not_pairs(value: Any) -> str:
    """What of an option is neither NAME=VALUE nor JSON."""
    texts = [text for text in value if isinstance(text, str) and "=" not in text] if isinstance(value, list) else []
    return next((text for text in texts if not text.startswith("{") or _not_json("", text)), "")


def _nearest(given: Any, valid: list[str]) -> str:
    close = difflib.get_close_matches(str(given)[:100], valid, n=1, cutoff=0.5)
    return f"; the nearest is {close[0]}" if close else ""
