"""The table of series in words, for the README."""

from typing import Any

from hvdtrain.metrics.registry import Metrics, RunMetrics
from hvdtrain.metrics.series import Series, rows

BEGIN, END = "<!-- metrics -->\n", "<!-- /metrics -->\n"


def table() -> str:
    """A Markdown table of every series."""
    lines = ["| series | kind | labels | what it tells |", "|---|---|---|---|"]
    for ranks, of in (("every worker", Metrics), ("rank 0", RunMetrics)):
        lines.append(f"| **{ranks}** | | | |")
        lines += [_line(row) for row in rows(of).values()]
    return "\n".join(lines) + "\n"


def written_into(text: str) -> str:
    """`text`, a README, with the table as it is now between its two marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def _line(row: Series[Any]) -> str:
    kind = row.kind.__name__.lower().replace("info", "gauge")
    labels = ", ".join(f"`{label}`" for label in row.labels)
    if row.values:
        labels += ": " + ", ".join(row.values)
    return f"| `{row.exported}` | {kind} | {labels} | {row.help} |"
