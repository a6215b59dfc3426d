"""A configuration's text: YAML that somebody wrote, and that may be anything."""

import os
import stat
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from hvdtrain.config.checks import shown
from hvdtrain.errors import ConfigError

MOST_BYTES = 1 << 16  # of a configuration; a whole one has 3,000
LINE = 400  # characters of a message at most, its remedy aside

# What YAML's own conversions raise over a number of 5,000 digits, a 13th month, `!!int ''`, base 60 beyond all floats.
_ODD = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


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
