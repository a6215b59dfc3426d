"""Making, keeping and using the index of a folder of ImageNet's size: `python benchmarks/index.py DIR`.

DIR gets as many image files as asked for, in 1,000 classes, most of them hard links to a few thousand photographs: what
is measured is the work of the program with warm caches, to which a disk adds its own time. Reported are

    index         images/s while the index is made anew, on all cores
    kept          seconds to take the kept index, with its check for changes
    first batch   seconds from the kept index to a first batch of 32 at 224 pixels, torch and DALI being imported
    memory        peak resident bytes per image and worker, of two under mpirun, with the index and two epochs' orders:
                  above those of two with the images of one class only
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hvdtrain.bench import photos

CLASSES = 1000
PHOTOGRAPHS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the index of a folder of many images.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.folder)
        return
    many, few = options.folder / "many", options.folder / "few"
    for folder, images in ((few, CLASSES), (many, options.images)):
        fill(folder, images, options.folder / "photographs")
    figures = made(many) | {"images": options.images}
    made(few)
    large = measured(many)
    peaks = [max(measured(folder, "mpirun", "--bind-to", "none", "-np", "2")["peaks"]) for folder in (many, few)]
    figures |= {
        "kept_seconds": large["kept_seconds"],
        "first_batch_seconds": large["first_batch_seconds"],
        "memory_bytes_per_image": (peaks[0] - peaks[1]) / (options.images - CLASSES),
    }
    for name, figure in figures.items():
        print(f"{name:26}{figure:>14,.2f}")
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        record = {"date": time.strftime("%Y-%m-%d"), "machine": machine, "figures": figures}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def fill(folder: Path, images: int, originals: Path) -> None:
    """folder/train with `images` links, and folder/val with one image a class, unless they are there."""
    if not originals.exists():
        photos.write(originals, images=PHOTOGRAPHS)
    sources = sorted(originals.rglob("*.JPEG"))
    for part, count in (("train", images), ("val", CLASSES)):
        if (folder / part).exists():
            continue
        for number in range(count):
            target = folder / part / f"n{number % CLASSES:08}" / f"{part}_{number:08}.JPEG"
            if number < CLASSES:
                target.parent.mkdir(parents=True)
            os.link(sources[number % len(sources)], target)


def made(folder: Path) -> dict[str, float]:
    """Make the indices of both parts anew; images/s of the larger."""
    from hvdtrain.data import scan

    began = time.perf_counter()
    index = scan.scan(folder / "train", workers=os.cpu_count() or 1)
    seconds = time.perf_counter() - began
    cache = folder / "cache"
    for part in ("train", "val"):
        scan.find(folder / part, cache=cache, workers=os.cpu_count() or 1)
    return {"index_images_per_second": len(index) / seconds, "index_seconds": seconds}


def measured(folder: Path, *launcher: str) -> Any:
    command = [*launcher, sys.executable, __file__, str(folder), "--worker"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **root, "PATH": path}
    )
    return json.loads(ran.stdout.splitlines()[-1])


def worker(folder: Path) -> None:
    """What one worker of a run does until its first batch, and into the second epoch's order; rank 0 reports."""
    import torch

    from hvdtrain.config.recipe import DataConfig
    from hvdtrain.config.schema import Config
    from hvdtrain.data import order, scan
    from hvdtrain.data.dali import DaliDecoder  # noqa: F401  imported before the clock starts
    from hvdtrain.distributed.activity import Activity
    from hvdtrain.distributed.comm import HorovodComm, SoloComm
    from hvdtrain.distributed.topology import from_environment
    from hvdtrain.train.data import Data, Machine

    config = Config(data=DataConfig(dir=folder, cache_dir=folder / "cache"))
    size = from_environment(os.environ).size
    comm = HorovodComm(expected_size=size, activity=Activity()) if size > 1 else SoloComm()
    began = time.perf_counter()
    data = Data(config, comm, Machine(torch.device("cpu"), threads=os.cpu_count() or 1))
    kept = time.perf_counter()
    batch = next(data.training(0))
    first = time.perf_counter()
    assert len(batch.labels) == config.data.batch_size
    assert scan.kept_at(folder / "train", folder)[0].exists()
    order.permutation(config.seed, 1, len(data.train))
    peaks = comm.gather(peak_bytes(), "peaks")
    if comm.rank == 0:
        print(json.dumps({"kept_seconds": kept - began, "first_batch_seconds": first - began, "peaks": peaks}))
    comm.close()


def peak_bytes() -> int:
    """Of this process; getrusage would tell the parent's where that is higher."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
