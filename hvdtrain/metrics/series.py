"""A row of the table of series, and the object that is made from it."""

import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric

Kind = TypeVar("Kind", Counter, Gauge, Histogram, Info)


@dataclass(frozen=True)
class Series(Generic[Kind]):
    """All that Prometheus is told of a series. `make_all` puts the object made from it in its place on an instance."""

    kind: type[Kind]
    name: str
    """Without the suffix of its kind, see `exported`."""
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    """Of its one label, where they are known beforehand."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, rising; infinity is added."""

    @overload
    def __get__(self, instance: None, owner: type) -> "Series[Kind]": ...
    @overload
    def __get__(self, instance: object, owner: type) -> Kind: ...
    def __get__(self, instance: object | None, owner: type) -> "Series[Kind] | Kind":
        if instance is None:
            return self
        raise AttributeError(f"{self.name} was not made")  # else the instance's own object would have been found first

    @property
    def exported(self) -> str:
        """The name in a query.

        >>> Series(Counter, "hvdtrain_steps", "Steps").exported
        'hvdtrain_steps_total'
        """
        return self.name + {"Counter": "_total", "Info": "_info"}.get(self.kind.__name__, "")

    def make(self, registry: CollectorRegistry) -> Kind:
        """The series as it is before anything was measured.

        A gauge is NaN, not 0; with labels it is absent. A counter is 0, with labels under all their known values, so
        that a query of its increase misses nothing.
        """
        more: dict[str, Any] = {"buckets": self.buckets} if self.kind is Histogram else {}
        labels = () if self.kind is Info else self.labels
        made = self.kind(self.name, self.help, labels, registry=registry, **more)
        if isinstance(made, Gauge) and not labels:
            made.set(math.nan)
        if isinstance(made, Counter):
            for value in self.values:
                made.labels(value)
        return made


def rows(table: type) -> dict[str, Series[Any]]:
    """The series that a class declares, by attribute, from top to bottom."""
    return {name: row for name, row in vars(table).items() if isinstance(row, Series)}


def make_all(metrics: object, registry: CollectorRegistry) -> None:
    """Give `metrics` an attribute for each row of its class."""
    for attribute, row in rows(type(metrics)).items():
        setattr(metrics, attribute, row.make(registry))


class Registry(CollectorRegistry):
    """Of one process. A scrape sees all that changed within one `with registry.together`, or nothing of it."""

    def __init__(self) -> None:
        super().__init__()
        self.together = threading.Lock()
        """To be held for microseconds; a scrape holds it for less than a millisecond, however slow its reader is."""

    def collect(self) -> Iterator[Metric]:
        with self.together:
            families: Iterable[Metric] = list(super().collect())
        yield from families
