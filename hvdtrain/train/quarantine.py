"""What all workers together leave out: the lists of before, and what each of them finds on the way."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from hvdtrain.config.schema import Config
from hvdtrain.data import quarantine as lists
from hvdtrain.data.loader import Source
from hvdtrain.data.scan import BESIDE
from hvdtrain.distributed.comm import Comm, of_rank_0, on_rank_0
from hvdtrain.errors import DataError
from hvdtrain.log import logger

Found = dict[str, dict[int, str]]  # part -> row -> reason


class SharedQuarantine:
    """Masks on every worker what any worker could not decode."""

    def __init__(self, config: Config, comm: Comm, sources: Mapping[str, Source]) -> None:
        """Mask what is listed already: by `hvdtrain data verify`, and by this run before it was stopped. Collective.

        Raises:
            DataError: a list cannot be read, or too many images are left out.
        """
        self._comm, self._sources, self._dir = comm, sources, config.data.dir
        self._file = config.run_dir / lists.FILE
        self._most = config.data.max_bad_ratio
        for part, masked in of_rank_0(comm, partial(self._listed, config), "quarantine").items():
            sources[part].quarantine.mask(masked)
        for part, source in sources.items():
            count = int(source.quarantine.masked.sum())
            if comm.rank == 0 and count:
                logger.warning("%d of %d %s images cannot be decoded and are left out", count, len(source.index), part)
        self._check()

    def share(self) -> Found:
        """What workers found since the last call, now masked by all of them, and on disk. Collective.

        Raises:
            DataError: too many images are left out.
        """
        (found,) = self._comm.sum([float(sum(len(s.quarantine.found) for s in self._sources.values()))], "found")
        if not found:
            return {}
        mine = {part: source.quarantine.take_found() for part, source in self._sources.items()}
        everyones = self._comm.gather(mine, "quarantine")
        merged: Found = {part: {} for part in self._sources}
        for one in everyones:
            for part, rows in one.items():
                merged[part] |= rows
        for part, rows in merged.items():
            self._sources[part].quarantine.mask(rows)
        on_rank_0(self._comm, partial(self._write_down, merged), "quarantine list")
        self._check()
        return merged

    def _listed(self, config: Config) -> dict[str, list[int]]:
        """The rows of each part."""
        if config.data.source != "images":
            return {}
        reasons = lists.read(self._file)
        if config.data.quarantine != "none":
            reasons |= lists.read(_list(config.data.quarantine, config.data.dir))
        return {part: lists.rows_of(source.index, part, reasons) for part, source in self._sources.items()}

    def _write_down(self, found: Found) -> None:
        reasons = lists.read(self._file)
        for part, rows in found.items():
            names = self._sources[part].index.names
            reasons |= {f"{part}/{names[row]}": reason for row, reason in rows.items()}
        lists.write(self._file, reasons)

    def _check(self) -> None:
        for part, source in self._sources.items():
            if source.quarantine.ratio > self._most:
                count = int(source.quarantine.masked.sum())
                raise DataError(
                    f"{count} of {len(source.index)} {part} images cannot be decoded: expected at most "
                    f"data.max_bad_ratio = {self._most:g} of them",
                    remedy=f"hvdtrain data verify {self._dir} says which and why",
                    everyones=self._comm.rank != 0,  # all know it, and rank 0 tells of it
                )


def _list(chosen: str, data: Path) -> Path:
    if chosen == "auto":
        return data / BESIDE / lists.FILE
    path = Path(chosen)
    if not path.exists():
        raise DataError(f"there is no quarantine list {path}", remedy="set data.quarantine")
    return path
