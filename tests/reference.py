"""The pages in docs/reference/, made from what they are about."""

import argparse
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hvdtrain import discover
from hvdtrain.config.schema import Config
from hvdtrain.metrics.registry import Metrics, RunMetrics
from hvdtrain.metrics.series import Series, rows

from .pages import parsers

BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", type(None): "null"}


def configuration() -> str:
    """Every setting with its type, default and docstring."""
    lines = [
        "# Every setting",
        "",
        "Written from [the schema](../../hvdtrain/config/schema.py) by",
        "`pytest tests/test_reference.py --update-golden`. Each is a dotted option of `hvdtrain train`, `config`,",
        "`submit` and `bench scaling`, and a key of a YAML file: `--data.batch_size 64` is `data: {batch_size: 64}`.",
        "",
    ]
    defaults = Config().settings()
    for name, section in (("", Config), *_sections()):
        lines += [
            f"## {name or 'The run as a whole'}",
            "",
            "| option | type | default | what it does |",
            "|---|---|---|---|",
        ]
        for key, field in section.model_fields.items():
            if _is_section(field.annotation):
                continue
            dotted = f"{name}.{key}" if name else key
            default = _cell(json.dumps(defaults[dotted]))
            lines.append(f"| `--{dotted}` | {_type(field)} | `{default}` | {_cell(field.description or '')} |")
        lines.append("")
    return "\n".join(lines)


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in Config.model_fields.items():
        if _is_section(field.annotation):
            yield name, field.annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _type(field: FieldInfo) -> str:
    return _cell(_named(field.annotation, field.metadata))


def _named(annotation: Any, metadata: Any = ()) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _named(inner[0], inner[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(one) for one in inner)
    if origin is tuple:
        several = inner[-1] is Ellipsis
        items = [_named(one) for one in inner if one is not Ellipsis]
        return f"list of {items[0]}" if several else f"[{', '.join(items)}]"
    if origin is dict:
        return "NAME=VALUE"
    bounds = [
        f"{word} {limit}" for one in metadata for key, word in BOUNDS.items() if (limit := _of(one, key)) is not None
    ]
    return " ".join([PLAIN[annotation], " and ".join(bounds)]).strip()


def _of(constraint: Any, key: str) -> str | None:
    value = getattr(constraint, key, None)
    return None if value is None or callable(value) else f"{value:,}".removesuffix(".0")


def programs() -> dict[str, argparse.ArgumentParser]:
    """Every verb's parser by its full name, and that of the command beside hvdtrain."""
    return {**parsers(), discover.PROGRAM: discover.parser()}


def command_line() -> str:
    """Every verb with its description and its own options."""
    lines = [
        "# Every verb",
        "",
        "What `hvdtrain VERB --help` says, written by `pytest tests/test_reference.py --update-golden`; last that of",
        "hvdtrain-discover, which horovodrun calls.",
        "",
    ]
    for name, parser in programs().items():
        lines += [f"## {name}", "", "```", f"{parser.description}".rstrip(), "```", ""]
        rows = list(_arguments(parser))
        if rows:
            lines += ["| argument | what it does |", "|---|---|", *rows, ""]
        if takes_settings(parser):
            shown = "Settings of the job, `--job.*`" if name == "hvdtrain resume" else "Every setting"
            lines += [f"{shown}: [configuration](configuration.md).", ""]
    return "\n".join(lines)


def metrics() -> str:
    """Every series with its kind, its labels and what it tells."""
    lines = [
        "# Every series",
        "",
        "Written from [the registry](../../hvdtrain/metrics/registry.py) by",
        "`pytest tests/test_reference.py --update-golden`. [Where the exporters listen](../../README.md#metrics);",
        "what the alerts make of them: [docker/monitoring](../../docker/monitoring/README.md).",
        "",
        "| series | kind | labels | what it tells |",
        "|---|---|---|---|",
    ]
    for ranks, table in (("every worker", Metrics), ("rank 0", RunMetrics)):
        lines.append(f"| **{ranks}** | | | |")
        lines += [_series(row) for row in rows(table).values()]
    return "\n".join(lines) + "\n"


def _series(row: Series[Any]) -> str:
    kind = row.kind.__name__.lower().replace("info", "gauge")
    labels = ", ".join(f"`{label}`" for label in row.labels)
    if row.values:
        labels += ": " + ", ".join(row.values)
    return f"| `{row.exported}` | {kind} | {labels} | {row.help} |"


def takes_settings(parser: argparse.ArgumentParser) -> bool:
    return "--config" in parser._option_string_actions


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for below in action._get_subactions():
                yield f"| `{below.dest}` | {_cell(formatter._expand_help(below))} |"
            continue
        setting = takes_settings(parser) and action.dest.split(".")[0] in Config.model_fields
        if setting or action.dest in ("help", "version") or action.help in (None, argparse.SUPPRESS):
            continue
        value = "" if action.nargs == 0 else f" {_value(action)}"
        names = ", ".join(action.option_strings) + value if action.option_strings else _value(action)
        yield f"| `{_cell(names)}` | {_cell(formatter._expand_help(action))} |"


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
