"""limit.c, compiled here, with the files in memory and the windows that ours has in its first epoch."""

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

POINTER, NUMBER, SMALL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class Work(ctypes.Structure):
    """limit.c says what these are."""

    _fields_ = (
        ("jpegs", POINTER),
        ("lengths", POINTER),
        ("windows", POINTER),
        ("flips", POINTER),
        ("plans", NUMBER),
        ("first", NUMBER),
        ("count", NUMBER),
        ("slots", NUMBER),
        ("size", SMALL),
        ("mean", POINTER),
        ("std", POINTER),
        ("out", POINTER),
    )


def pictures(options: SimpleNamespace, mean: Any, std: Any, area: Any, aspect: Any) -> Callable[[int], None]:
    """Makes so many batches at each call. The pictures of the last one are in its attribute `out`, (n, H, W, 3)."""
    from hvdtrain.data import augment, order

    files = sorted((Path(options.data) / "train").glob("*/*"))
    sizes = []
    for file in files:
        with Image.open(file) as image:
            sizes.append(image.size)
    widths, heights = np.array(sizes, np.int32).T
    rows = order.permutation(0, 0, len(files))
    epochs = np.zeros(len(rows), np.int64)
    drawn = augment.training_windows(
        seed=0,
        epochs=epochs,
        samples=rows,
        heights=heights[rows],
        widths=widths[rows],
        area=area,
        aspect=aspect,
    )
    jpegs = [np.frombuffer(files[row].read_bytes(), np.uint8) for row in rows]
    arrays = {
        "jpegs": np.array([jpeg.ctypes.data for jpeg in jpegs], np.uint64),
        "lengths": np.array([len(jpeg) for jpeg in jpegs], np.uint64),
        "windows": np.ascontiguousarray(drawn, np.int32),
        "flips": augment.flips(seed=0, epochs=epochs, samples=rows, probability=0.5).astype(np.uint8),
        "mean": np.array([255 * m for m in mean], np.float32),
        "std": np.array([255 * s for s in std], np.float32),
        "out": np.zeros((options.batch, options.image, options.image, 3), np.float32),
    }
    work = Work(**{name: array.ctypes.data for name, array in arrays.items()})
    work.plans, work.slots, work.size = len(rows), options.batch, options.image
    make = _compiled(Path(options.scratch)).make_pictures

    def take(batches: int) -> None:
        work.count = batches * options.batch
        make(ctypes.byref(work), options.cores)
        work.first += work.count

    take.keep = (jpegs, arrays)  # type: ignore[attr-defined]  # limit.c has only their addresses
    take.out = arrays["out"]  # type: ignore[attr-defined]
    return take


def _compiled(folder: Path) -> ctypes.CDLL:
    source, library = Path(__file__).with_suffix(".c"), folder / "limit.so"
    command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library, "-ljpeg", "-lpthread", "-lm"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise OSError(f"cannot compile {source.name}: {ran.stderr.strip().splitlines()[0]}")
    return ctypes.CDLL(str(library))
