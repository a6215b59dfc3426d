"""Every image of a data set read and decoded: what training would fail on, and what else one should know before it.

Faults go to the quarantine list, whose images training leaves out. Who runs this from a script reads `Report.sound`.
"""

import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hvdtrain.data import diagnose, keyed, scan
from hvdtrain.data import quarantine as lists
from hvdtrain.data.diagnose import DIGEST_BYTES, KINDS, Diagnosis, Place
from hvdtrain.data.index import Index
from hvdtrain.data.parallel import WORTH_PROCESSES, parallel
from hvdtrain.data.progress import progress
from hvdtrain.errors import ConfigError, DataError
from hvdtrain.log import logger

PARTS = ("train", "val")
CHUNK = 100  # images that one worker examines at a time
STALE = "stale-index"
EXAMPLES = 3  # of each kind in the table
SAMPLE_KEY = 1  # of the random numbers that say which images a sample has


@dataclass(frozen=True)
class Finding:
    part: str
    image: str  # class/file
    kind: str  # one of diagnose.KINDS
    detail: str
    shard: str = ""  # the tar file that holds it

    @property
    def name(self) -> str:
        """As the quarantine list has it: train/n01440764/n01440764_10026.JPEG"""
        return f"{self.part}/{self.image}"

    @property
    def fault(self) -> bool:
        return KINDS[self.kind].fault


@dataclass(frozen=True)
class Part:
    name: str
    images: int
    looked_at: int

    @property
    def whole(self) -> bool:
        return self.looked_at == self.images


@dataclass(frozen=True)
class Report:
    """What is known of DIR/train and DIR/val, or of the one that is there."""

    folder: Path
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]  # by part and name; one image may have several
    seconds: float  # of reading and decoding; the making of an index not counted
    dali: bool  # whether DALI was asked too

    @property
    def sound(self) -> bool:
        """Training would read every image that was looked at, as it is."""
        return not any(finding.fault or finding.kind == STALE for finding in self.findings)

    @property
    def looked_at(self) -> int:
        return sum(part.looked_at for part in self.parts)

    @property
    def images_per_second(self) -> float:
        return self.looked_at / max(self.seconds, 1e-9)


def verify(folder: Path, *, cache: Path, workers: int, sample: int | None = None) -> Report:
    """Decode the images of folder/train and folder/val, or of what there is of the two.

    Args:
        cache: where the index is kept if `folder` cannot be written.
        workers: images that are read and decoded at a time.
        sample: look at so many images of each part only, the same every time; duplicates are sought among them alone.

    Raises:
        DataError: there is neither part, a part has no images, or a shard is torn.
    """
    if sample is not None and sample < 1:
        raise ConfigError(f"a sample of {sample} images: expected 1 at least")
    present = [part for part in PARTS if (folder / part).is_dir()]
    if not present:
        raise DataError(f"{folder} has neither train/ nor val/: expected {folder}/train/<class>/*.JPEG or *.tar")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow murmurs about metadata; what is worth it is a finding of ours
        indices = {part: scan.find(folder / part, cache=cache, workers=workers) for part in present}
        begin = time.monotonic()
        walks = [_walk(folder / part, index, workers, sample) for part, index in indices.items()]
    for walk in walks:
        if any(kind == STALE for _, kind, _ in walk.found):
            places = [str(place) for place in scan.kept_at(walk.root, cache) if place.exists()]
            logger.warning("the index of %s is stale: delete %s", walk.root, " and ".join(places))
    found = [*(walk.finding(*one) for walk in walks for one in walk.found), *duplicates(walks)]
    kinds = list(KINDS)
    return Report(
        folder=folder,
        parts=tuple(Part(walk.part, len(walk.index), len(walk.rows)) for walk in walks),
        findings=tuple(sorted(found, key=lambda f: (PARTS.index(f.part), f.image, kinds.index(f.kind)))),
        seconds=time.monotonic() - begin,
        dali=diagnose.dali_installed(),
    )


def drawn(images: int, sample: int | None) -> NDArray[np.int64]:
    """The rows of a part that are looked at, in ascending order: all, or a random `sample`, the same every time."""
    rows = np.arange(images)
    if sample is None or sample >= images:
        return rows
    return np.sort(np.argsort(keyed.words(SAMPLE_KEY, rows), kind="stable")[:sample])


@dataclass
class Walk:
    """What is found in one part."""

    root: Path
    index: Index
    rows: NDArray[np.int64]  # (looked_at,) of the index
    digests: NDArray[np.uint8]  # (looked_at, DIGEST_BYTES); zeros where an image cannot be decoded
    found: list[tuple[int, str, str]] = field(default_factory=list)  # row, kind, detail

    @property
    def part(self) -> str:
        return self.root.name

    def place(self, row: int) -> Place:
        name = self.index.names[row]
        if self.index.shard is None or self.index.offsets is None:
            return Place(f"{self.root}/{name}", name)
        shard = self.root / self.index.shards[self.index.shard[row]]
        return Place(str(shard), name, (int(self.index.offsets[row]), int(self.index.sizes[row])))

    def finding(self, row: int, kind: str, detail: str) -> Finding:
        shard = "" if self.index.shard is None else self.index.shards[self.index.shard[row]]
        return Finding(self.part, self.index.names[row], kind, detail, shard)


def duplicates(walks: Sequence[Walk]) -> Iterator[Finding]:
    """Images with the bytes of an earlier one, train before val: with its label and part, or, which is worse, not."""
    parts = np.repeat(np.arange(len(walks)), [len(walk.rows) for walk in walks])
    rows = np.concatenate([walk.rows for walk in walks])
    keys = np.concatenate([walk.digests for walk in walks]).view(np.uint64)  # (images, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal ones stay in order
    order = order[keys[order].any(axis=1)]
    again = np.zeros(len(order), np.bool_)
    again[1:] = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    first_of = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
    for at in np.flatnonzero(again).tolist():
        (one, row), (other, twin) = ((int(parts[i]), int(rows[i])) for i in (order[at], order[first_of[at]]))
        mine, its = walks[one].index, walks[other].index
        detail = f"{walks[other].part}/{its.names[twin]}"
        if mine.classes[mine.labels[row]] != its.classes[its.labels[twin]]:
            yield walks[one].finding(row, "label-conflict", detail)
        if one != other:
            yield walks[one].finding(row, "leak", detail)
        elif mine.labels[row] == its.labels[twin]:
            yield walks[one].finding(row, "duplicate", detail)


def as_json(report: Report) -> str:
    """The whole report for machines."""
    counts = Counter(finding.kind for finding in report.findings)
    whole = asdict(report) | {"folder": str(report.folder), "sound": report.sound, "counts": counts}
    return json.dumps(whole | {"images_per_second": report.images_per_second}, indent=2)


def render(report: Report) -> str:
    """The table for people: each kind that was found with what it means and some images."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for kind, about in KINDS.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if found:
            mark = "[red]no[/]" if about.fault or kind == STALE else "[dim]--[/]"
            table.add_row(mark, kind, f"{len(found):,}", about.meaning)
        for finding in found[:EXAMPLES]:
            table.add_row("", "", "", f"[dim]{escape(_example(report, finding))}[/]")
    console = Console()
    with console.capture() as capture:
        console.print(table)
    return "\n".join([*([capture.get().rstrip("\n"), ""] if report.findings else []), *_totals(report)])


def quarantine_file(folder: Path) -> Path:
    """The list that training reads unless it is told another one."""
    return folder / scan.BESIDE / lists.FILE


def write_quarantine(report: Report, path: Path) -> str:
    """Replace the list at `path` by all faults, or add them if only a sample was looked at; one line on what was done.

    Raises:
        DataError: the list cannot be written, or the one to add to cannot be read.
    """
    reasons = {finding.name: f"{finding.kind}: {finding.detail}" for finding in report.findings if finding.fault}
    whole = all(part.whole for part in report.parts)
    if not reasons and (not whole or not path.exists()):
        return "no fault found, and no quarantine list written"
    listed = reasons if whole else lists.read(path) | reasons
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lists.write(path, listed)
    except OSError as error:
        remedy = "hvdtrain data verify … --quarantine PATH, and train with --data.quarantine PATH"
        raise DataError(f"cannot write the quarantine list {path}: {error}", remedy=remedy) from None
    return f"{len(listed):,} images to leave out, listed in {path}"


def _walk(root: Path, index: Index, workers: int, sample: int | None) -> Walk:
    """Examine one part, in the order in which its images lie on the disk."""
    rows = drawn(len(index), sample)
    walk = Walk(root, index, rows, np.zeros((len(rows), DIGEST_BYTES), np.uint8))
    order = np.arange(len(rows))
    if index.shard is not None and index.offsets is not None:
        order = np.lexsort((index.offsets[rows], index.shard[rows]))
    chunks = np.split(order, range(CHUNK, len(order), CHUNK))
    places = ([walk.place(row) for row in rows[chunk].tolist()] for chunk in chunks)
    unsure: dict[int, tuple[int, int]] = {}  # row -> pixels
    with progress(f"verifying {walk.part}", len(rows)) as advance:
        examined = parallel(_examine, places, workers=workers, processes=len(rows) >= WORTH_PROCESSES)
        for chunk, diagnoses in zip(chunks, examined, strict=True):
            for at, diagnosis in zip(chunk.tolist(), diagnoses, strict=True):
                row = int(rows[at])
                walk.digests[at] = np.frombuffer(diagnosis.digest, np.uint8)
                walk.found += [(row, *one) for one in diagnosis.findings]
                if stale := _stale(index, row, diagnosis):
                    walk.found.append((row, STALE, stale))
                if diagnosis.ask_dali:
                    unsure[row] = (diagnosis.height, diagnosis.width)
            advance(len(chunk))
    if unsure and diagnose.dali_installed():
        with progress(f"verifying {walk.part} with DALI", len(unsure)) as advance:
            refused = diagnose.dali_faults([*map(walk.place, unsure)], [*unsure.values()], threads=workers)
            for row, refusal in zip(unsure, refused, strict=True):
                walk.found += [(row, *refusal)] if refusal else []
                advance(1)
    return walk


def _examine(places: list[Place]) -> list[Diagnosis]:
    with warnings.catch_warnings():  # as the caller does, which another process knows nothing of
        warnings.simplefilter("ignore")
        return [diagnose.examine(place) for place in places]


def _stale(index: Index, row: int, now: Diagnosis) -> str:
    """How a file differs from its row of the index. What cannot be decoded may have any pixels in the index."""
    was = (int(index.sizes[row]), int(index.heights[row]), int(index.widths[row]))
    is_now = (now.size, now.height, now.width)
    if now.size == 0 or was == is_now or (now.height == 0 and was[0] == now.size):
        return ""
    index_has, file_has = (f"{size:,} bytes, {width}x{height} pixels" for size, height, width in (was, is_now))
    return f"the index has {index_has}; the file {file_has}"


def _example(report: Report, finding: Finding) -> str:
    """Path and detail; a file name may hold bytes that are no text."""
    path = f"{finding.part}/{finding.shard}:{finding.image}" if finding.shard else finding.name
    return os.fsencode(f"{report.folder}/{path}: {finding.detail}").decode("utf-8", "backslashreplace")


def _totals(report: Report) -> Iterator[str]:
    for part in report.parts:
        bad, odd = (
            {f.image for f in report.findings if (f.part, f.fault) == (part.name, is_)} for is_ in (True, False)
        )
        share = f"{part.images:,}" if part.whole else f"{part.looked_at:,} of {part.images:,}"
        yield f"{part.name:5}  {share} images looked at: {len(bad):,} with a fault, {len(odd - bad):,} odd"
    yield from (f"{part:5}  is not there" for part in PARTS if part not in [present.name for present in report.parts])
    if not report.dali:
        yield "DALI is not installed: what it alone would refuse is not found"
    yield f"{report.looked_at:,} images in {report.seconds:.1f} s: {report.images_per_second:,.0f} images/s"
