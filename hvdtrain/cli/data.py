"""data demo, prepare, verify, pack."""

import sys
from argparse import Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain import log
from hvdtrain.cli.verbs import add_threads, threads
from hvdtrain.config.load import Parser
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs

DATA = """\
Make data sets, and see whether they are sound. Each goes on where it was interrupted.

    hvdtrain data prepare /imagenet --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar \\
        --devkit ILSVRC2012_devkit_t12.tar.gz
    hvdtrain data verify /imagenet
    hvdtrain data pack /imagenet /imagenet-tar
"""
DEMO = """\
Write 1,797 handwritten digits (UCI, CC BY 4.0) as a folder of images in ImageNet's
layout: to try everything else in seconds.

    hvdtrain data demo runs/digits
    hvdtrain train --config demo --data.dir runs/digits
"""
PREPARE = """\
Lay the ILSVRC2012 archives out as train/<wnid>/*.JPEG and val/<wnid>/*. They are
compared with the published sizes and MD5 first. What was interrupted goes on.

    hvdtrain data prepare /imagenet --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar \\
        --devkit ILSVRC2012_devkit_t12.tar.gz
"""
VERIFY = """\
Decode every image, and list what training has to leave out. Training reads that
list, where it lies beside the data.

    hvdtrain data verify /imagenet
    hvdtrain data verify /imagenet --sample 10000

Exit codes: 0 all images are sound; 1 some are not.
"""
PACK = """\
Write folders of images as WebDataset tar shards: some files to open in place of a
million. Training takes the one as the other.

    hvdtrain data pack /imagenet /imagenet-tar
    hvdtrain data pack /imagenet /imagenet-small --max-side 400
"""


def add(verbs: "Verbs") -> None:
    shape = RawDescriptionHelpFormatter
    data = verbs.add_parser(
        "data", help="make data sets, and see whether they are sound", description=DATA, formatter_class=shape
    )
    verbs = data.add_subparsers(metavar="VERB", required=True, parser_class=Parser)

    demo = verbs.add_parser(
        "demo",
        help="write the embedded digits (UCI, CC BY 4.0) in ImageNet's layout",
        description=DEMO,
        formatter_class=shape,
    )
    demo.add_argument("folder", type=Path, metavar="DIR", help="where to write train/ and val/")
    demo.set_defaults(parser=demo, verb=_demo)

    prepare = verbs.add_parser(
        "prepare",
        help="lay the ILSVRC2012 archives out as train/<wnid>/*.JPEG and val/<wnid>/*",
        description=PREPARE,
        formatter_class=shape,
    )
    prepare.add_argument("folder", type=Path, metavar="DIR", help="where to write; what was interrupted goes on")
    prepare.add_argument("--train", type=Path, metavar="TAR", help="ILSVRC2012_img_train.tar")
    prepare.add_argument("--val", type=Path, metavar="TAR", help="ILSVRC2012_img_val.tar, together with --devkit")
    prepare.add_argument("--devkit", type=Path, metavar="TGZ", help="ILSVRC2012_devkit_t12.tar.gz: the classes of val")
    prepare.add_argument(
        "--no-digest",
        action="store_true",
        help="do not compare size and MD5 with the published ones: minutes less, and other archives of their form",
    )
    prepare.set_defaults(parser=prepare, verb=_prepare)

    verify = verbs.add_parser(
        "verify",
        help="decode every image and list what training has to leave out",
        description=VERIFY,
        formatter_class=shape,
    )
    verify.add_argument("folder", type=Path, metavar="DIR", help="folder with train/ and val/, or one of them")
    verify.add_argument("--sample", type=int, metavar="N", help="look at N images of each part, the same every time")
    verify.add_argument("--quarantine", type=Path, metavar="PATH", help="where the list goes; default: beside the data")
    add_threads(verify)
    verify.add_argument("--json", action="store_true", help="the whole report for machines")
    verify.set_defaults(parser=verify, verb=_verify)

    pack = verbs.add_parser(
        "pack", help="write folders of images as WebDataset tar shards", description=PACK, formatter_class=shape
    )
    pack.add_argument("folder", type=Path, metavar="DIR", help="folder with train/ and val/, or one of them")
    pack.add_argument("target", type=Path, metavar="TARGET", help="where the shards go; what was interrupted goes on")
    pack.add_argument("--max-side", type=int, metavar="PIXELS", help="shrink images whose longer side is longer")
    pack.add_argument("--shard-mb", type=int, default=1000, metavar="MB", help="size of a shard; default %(default)s")
    add_threads(pack)
    pack.set_defaults(parser=pack, verb=_pack)


def _demo(given: Namespace, _: Topology) -> int:
    from hvdtrain.data import demo

    written = demo.write(given.folder)
    print(f"{written['train']} training and {written['val']} validation images in {given.folder}")
    return 0


def _prepare(given: Namespace, _: Topology) -> int:
    from hvdtrain.data.prepare import prepare

    log.configure(0)
    check = not given.no_digest
    written = prepare(given.folder, train=given.train, val=given.val, devkit=given.devkit, check_digests=check)
    print(f"{' and '.join(f'{images:,} {part}' for part, images in written.items())} images in {given.folder}")
    return 0


def _verify(given: Namespace, _: Topology) -> int:
    """Exit code 1 where training would not read every image as it is."""
    from hvdtrain.data import verify

    log.configure(0)
    report = verify.verify(given.folder, cache=_cache(), workers=threads(given), sample=given.sample)
    print(verify.as_json(report) if given.json else verify.render(report), flush=True)
    written = verify.write_quarantine(report, given.quarantine or verify.quarantine_file(given.folder))
    print(written, file=sys.stderr if given.json else sys.stdout)
    return 0 if report.sound else 1


def _pack(given: Namespace, _: Topology) -> int:
    from hvdtrain.data.pack import pack

    for option, least in (("max_side", 1), ("shard_mb", 1)):
        if (value := getattr(given, option)) is not None and value < least:
            given.parser.error(f"--{option.replace('_', '-')} {value}: expected {least} at least")
    log.configure(0)
    images = pack(
        given.folder,
        given.target,
        cache=_cache(),
        workers=threads(given),
        shard_bytes=given.shard_mb * 1_000_000,
        max_side=given.max_side,
    )
    print(f"{images:,} images in {given.target}")
    return 0


def _cache() -> Path:
    from hvdtrain.config.checks import expanded
    from hvdtrain.config.recipe import DataConfig

    return expanded("data.cache_dir", DataConfig().cache_dir)
