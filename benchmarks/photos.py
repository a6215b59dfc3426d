"""Photographs of ImageNet's sizes for tests and benchmarks: `python benchmarks/photos.py DIR --images 1000`."""

import argparse
from pathlib import Path

from hvdtrain.bench.photos import write


def main() -> None:
    parser = argparse.ArgumentParser(description="Write photographs of ImageNet's sizes to DIR/train and DIR/val.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--images", type=int, default=1000, help="in DIR/train")
    parser.add_argument("--val-images", type=int, default=100, help="in DIR/val")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for part, images in (("train", options.images), ("val", options.val_images)):
        write(options.folder, images=images, classes=options.classes, seed=options.seed, part=part)


if __name__ == "__main__":
    main()
