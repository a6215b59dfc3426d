"""The development kit of ILSVRC2012: which class each validation image belongs to.

The images of the validation archive are numbered; line n of the ground truth is the ILSVRC2012_ID of image n; meta.mat
says which wnid (WordNet ID, the name of a class) an ILSVRC2012_ID stands for. The IDs are not in the order of the
wnids.
"""

import re
import tarfile
import zlib
from pathlib import Path

from hvdtrain.data import matfile
from hvdtrain.errors import DataError

WNID = re.compile("n[0-9]{8}")
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
META = "ILSVRC2012_devkit_t12/data/meta.mat"
REMEDY = "give ILSVRC2012_devkit_t12.tar.gz as --devkit"


def validation_wnids(devkit: Path) -> tuple[str, ...]:
    """The wnid of each validation image, the first one's first.

    Raises:
        DataError: the kit cannot be read, or its two files do not fit together.
    """
    truth, meta = _files(devkit)
    wnids = _wnid_of_id(meta, devkit)
    lines = truth.decode("ascii", "replace").split()
    if not lines:
        raise DataError(f"{devkit}: {TRUTH} is empty: expected an ILSVRC2012_ID per line")
    for number, line in enumerate(lines, 1):
        if line not in wnids:
            raise DataError(f"{devkit}: line {number} of {TRUTH} is {line!r}: expected one of the {len(wnids)} IDs")
    return tuple(wnids[line] for line in lines)


def _files(devkit: Path) -> tuple[bytes, bytes]:
    try:
        with tarfile.open(devkit, "r:gz") as tar:
            found: dict[str, bytes] = {}
            for member in tar:
                file = tar.extractfile(member) if member.name in (TRUTH, META) and member.isreg() else None
                if file is None:
                    continue
                if member.name in found:
                    raise DataError(f"{devkit} has {member.name} twice")
                found[member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError, zlib.error) as error:
        raise DataError(f"{devkit} is no tar.gz archive, or is torn: {error}", remedy=REMEDY) from None
    for name in (TRUTH, META):
        if name not in found:
            raise DataError(f"{devkit} has no {name}", remedy=REMEDY)
    return found[TRUTH], found[META]


def _wnid_of_id(meta: bytes, devkit: Path) -> dict[str, str]:
    """ILSVRC2012_ID, as it is written in the ground truth -> wnid, of the synsets that are classes."""
    where = f"{META} of {devkit}"
    try:
        synsets = matfile.rows(meta, "synsets", ("ILSVRC2012_ID", "WNID", "num_children"))
        # a synset with children is none of the classes, though its ID looks like theirs
        classes = [(str(int(number)), str(wnid)) for number, wnid, children in synsets if not children]
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where} cannot be read: {error}", remedy=REMEDY) from None
    for number, wnid in classes:
        if not WNID.fullmatch(wnid):
            raise DataError(f"{where} has the wnid {wnid!r} for ID {number}: expected n and eight digits")
    wnids = dict(classes)
    if not len(classes) == len(wnids) == len(set(wnids.values())):
        raise DataError(f"{where} has an ID or a wnid twice among its {len(classes)} classes")
    return wnids
