"""Archives of the form of ILSVRC2012's, with four classes, and what is to come of them.

What is to be written is made beside the archives and never read out of them.
"""

import dataclasses
import gzip
import io
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.io import savemat

from hvdtrain.data.devkit import META, TRUTH
from hvdtrain.data.prepare import prepare

WNID_OF_ID = {1: "n02119789", 2: "n01440764", 3: "n15075141", 4: "n01443537"}  # as the published: not in order
PARENTS = {5: "n00001740", 6: "n01317541"}  # synsets with children, which are no classes
TRAIN = {"n15075141": 3, "n01440764": 5, "n02119789": 4, "n01443537": 2}  # images; not in order either
TRUTH_IDS = [3, 1, 4, 2, 2, 1, 3, 4, 1, 1, 2, 3]
END = bytes(1024)

Entry = tuple[str, bytes] | tarfile.TarInfo


def tar(entries: Iterable[Entry], format: int = tarfile.GNU_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry, io.BytesIO(bytes(entry.size)))
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return packed.getvalue()


def pixels(name: str) -> bytes:
    """Different for each name, of 1 to 5000 bytes."""
    source = random.Random(name)
    return source.randbytes(source.randint(1, 5000))


def training_images(wnid: str) -> dict[str, bytes]:
    names = [f"{wnid}_{number}.JPEG" for number in random.Random(wnid).sample(range(20_000), TRAIN[wnid])]
    return {name: pixels(name) for name in names}


def validation_images() -> dict[str, bytes]:
    return {
        name: pixels(name) for name in (f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, len(TRUTH_IDS) + 1))
    }


def meta(classes: Iterable[tuple[int, str, int]] | None = None, *, compress: bool = True) -> bytes:
    """meta.mat with (ID, wnid, number of children) of every synset, as a column of structs."""
    if classes is None:
        classes = [(i, w, 0) for i, w in WNID_OF_ID.items()] + [(i, w, 3) for i, w in PARENTS.items()]
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    rows = [(float(i), w, "a word, another", "", float(n), np.arange(n) + 1.0, 1.0) for i, w, n in classes]
    synsets = np.empty((len(rows), 1), [(field, object) for field in fields])
    for number, row in enumerate(rows):
        synsets[number, 0] = row
    file = io.BytesIO()
    savemat(file, {"synsets": synsets}, do_compression=compress)
    return file.getvalue()


def devkit(truth: str | None = None, meta_mat: bytes | None = None, more: Iterable[Entry] = ()) -> bytes:
    lines = "".join(f"{number}\n" for number in TRUTH_IDS) if truth is None else truth
    folder = tarfile.TarInfo("ILSVRC2012_devkit_t12/data")
    folder.type = tarfile.DIRTYPE
    entries = [folder, (META, meta() if meta_mat is None else meta_mat), (TRUTH, lines.encode()), *more]
    return gzip.compress(tar(entries), mtime=0)


def train_tar(replaced: dict[str, bytes] | None = None) -> bytes:
    inner = {f"{wnid}.tar": tar(training_images(wnid).items()) for wnid in TRAIN}
    return tar((inner | (replaced or {})).items())


@dataclasses.dataclass(frozen=True)
class Given:
    """Archives on disk, to be given to prepare()."""

    train: Path
    val: Path
    devkit: Path

    def into(self, folder: Path, *, digests: bool = False) -> dict[str, int]:
        return prepare(folder, train=self.train, val=self.val, devkit=self.devkit, check_digests=digests)


def write(folder: Path) -> Given:
    folder.mkdir()
    content = {"train.tar": train_tar(), "val.tar": tar(validation_images().items()), "devkit.tar.gz": devkit()}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return Given(*(folder / name for name in content))


def truth() -> dict[str, bytes]:
    """What there is to be: path -> bytes."""
    files = {f"train/{wnid}/{name}": data for wnid in TRAIN for name, data in training_images(wnid).items()}
    for number, (name, data) in zip(TRUTH_IDS, validation_images().items(), strict=True):
        files[f"val/{WNID_OF_ID[number]}/{name}"] = data
    return files


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below, with the bytes of what is a file."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def images(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.JPEG")}
