"""eval, predict, export: what a trained network is put to."""

import argparse
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain import log
from hvdtrain.cli.verbs import check_files
from hvdtrain.config.load import Parser
from hvdtrain.distributed.topology import Topology

if TYPE_CHECKING:
    from hvdtrain.cli.verbs import Verbs

TORCHVISION = "torchvision:"
EVAL = """\
Evaluate a checkpoint over the validation images as its run does: each image
once, on one worker or on all of mpirun, horovodrun or srun, with the same counts.

    hvdtrain eval runs/r50 --which best --json eval.json --figure eval.png
    mpirun -np 8 hvdtrain eval runs/r50/checkpoints/images-000115304940
    hvdtrain eval torchvision:resnet50 --weights resnet50.pth --data /imagenet

CHECKPOINT is a run directory, or one of its checkpoints; torchvision:NAME is a
network of torchvision's to compare with, its pictures resized to 256 and cropped
to 224 pixels unless its weights or --resize and --crop say otherwise. A moving
average of the weights is evaluated beside them. Each image is read once, where it
lies: data.stage of the run, which is for what is read again and again, copies none.

Exit codes: 0; 2 wrong options; 3 this machine cannot; 4 the images; 5 the checkpoint;
6 a worker was lost; 7 a worker fell silent, or did no batch, within the run's
distributed.watchdog_seconds; 130 interrupted; 128 + its number, as 143, for another
signal that asked it to leave.
"""
PREDICT = """\
Classify pictures with a checkpoint. They are resized and cropped as in the run's
evaluation, by Pillow.

    hvdtrain predict runs/r50 --which best --top 3 cat.jpg dog.jpg

Exit codes: 0; 4 if one could not be decoded, which does not stop the others.
"""
EXPORT = """\
Write a network in float32 for other programs. Before the file is put in its
place, its logits for a few fixed pictures are compared with the checkpoint's:
at most 1e-5 of the largest apart, or there is no file.

    hvdtrain export runs/r50 --which best --format safetensors --out r50.safetensors
    hvdtrain export runs/r50 --which best --format onnx --out r50.onnx

safetensors: parameters have torchvision's names, so its ResNets load them. onnx:
any number of images at a time. Both say what they are: classes, preprocessing,
configuration, step, accuracy. They need: pip install safetensors onnx onnxruntime
"""


def add(verbs: "Verbs") -> None:
    evaluate = _verb(verbs, "eval", "exact accuracy of a checkpoint, by class, on any number of workers", EVAL)
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT", help="run directory, checkpoint, or torchvision:NAME")
    _which(evaluate)
    evaluate.add_argument("--data", type=Path, metavar="DIR", help="folder with val/; default: the run's own")
    evaluate.add_argument(
        "--json", type=Path, metavar="FILE", help="write counts of each class and confused pairs there"
    )
    evaluate.add_argument("--figure", type=Path, metavar="FILE.png", help="draw them there")
    theirs = evaluate.add_argument_group("for torchvision:NAME")
    theirs.add_argument(
        "--weights", default="", metavar="FILE", help="state dict, or a name as IMAGENET1K_V1; default: torchvision's"
    )
    theirs.add_argument("--resize", type=int, metavar="PIXELS", help="shorter side of a picture before its crop")
    theirs.add_argument("--crop", type=int, metavar="PIXELS", help="height and width of a picture")
    evaluate.set_defaults(parser=evaluate, verb=_eval)

    predict = _verb(verbs, "predict", "classify pictures with a checkpoint", PREDICT)
    predict.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="run directory or checkpoint")
    predict.add_argument("images", nargs="+", metavar="IMAGE", help="file: JPEG, PNG, BMP or WebP")
    predict.add_argument("--top", type=int, default=5, metavar="N", help="classes of each; default: %(default)s")
    _which(predict)
    _average(predict)
    predict.add_argument("--json", action="store_true", help="machine-readable (JSON) output")
    predict.set_defaults(parser=predict, verb=_predict)

    export = _verb(
        verbs, "export", "a checkpoint's network as safetensors or ONNX, verified against the checkpoint", EXPORT
    )
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="run directory or checkpoint")
    export.add_argument("--format", choices=("safetensors", "onnx"), required=True, help="of the file")
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="output file; an existing one is replaced"
    )
    _which(export)
    _average(export)
    export.add_argument("--opset", type=int, default=17, metavar="N", help="of ONNX, 13 to 20; default: %(default)s")
    export.set_defaults(parser=export, verb=_export)


def _verb(verbs: "Verbs", name: str, line: str, description: str) -> Parser:
    return verbs.add_parser(
        name, help=line, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _which(verb: Parser) -> None:
    verb.add_argument(
        "--which",
        choices=("newest", "best"),
        default="newest",
        help="of a run directory, the last checkpoint or that of the best top-1; default: %(default)s",
    )


def _average(verb: Parser) -> None:
    verb.add_argument("--average", action="store_true", help="use the moving average of the weights instead")


def _eval(given: Namespace, topology: Topology) -> int:
    check_files(given.parser, given.json, given.figure)
    theirs = {name: getattr(given, name) for name in ("weights", "resize", "crop")}
    name = given.checkpoint.removeprefix(TORCHVISION)
    if name != given.checkpoint and given.data is None:
        given.parser.error(f"{given.checkpoint}: expected --data DIR, which has val/")
    if name == given.checkpoint and any(theirs.values()):
        given.parser.error(f"--{next(n for n, value in theirs.items() if value)} goes with torchvision:NAME alone")
    log.configure(topology.rank)
    from hvdtrain.inference import evaluate, figure, text
    from hvdtrain.inference.pretrained import Pretrained

    if name != given.checkpoint:
        report = evaluate.of_torchvision(Pretrained(name, **theirs), topology, data=given.data)
    else:
        report = evaluate.of_checkpoint(Path(given.checkpoint), topology, data=given.data, which=given.which)
    if report is None:  # rank 0 has it
        return 0
    print(text.text(report), flush=True)
    if given.json:
        from hvdtrain.files import pretty_json
        from hvdtrain.train.folder import write

        write(given.json, pretty_json(text.record(report)))
    if given.figure:
        from hvdtrain.train.folder import write_bytes

        write_bytes(given.figure, figure.draw(report))
    return 0


def _predict(given: Namespace, topology: Topology) -> int:
    """Exit code 4, that of DataError, where a picture could not be decoded."""
    _alone(given, topology)
    if given.top < 1:
        given.parser.error(f"--top {given.top}: expected 1 at least")
    log.configure(0)
    import torch

    from hvdtrain.errors import DataError
    from hvdtrain.inference import predict, text
    from hvdtrain.train import trained

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run_dir, config = trained.settings(given.checkpoint)
    found = trained.read(given.checkpoint, run_dir, config, which=given.which)
    model = trained.chosen(found, config, device, average=given.average)
    classes = trained.named(found.classes, trained.outputs(model.state_dict()))
    faults, told = 0, []
    for each in predict.predict(model, given.images, config, device, top=given.top):
        if given.json:
            told.append(text.prediction_record(each, classes))
        elif not each.fault:
            print(text.prediction(each, classes), flush=True)
        if each.fault:
            faults += 1
            print(f"hvdtrain: {text.shown(each.image)} cannot be decoded: {each.fault}", file=sys.stderr, flush=True)
    if given.json:
        from hvdtrain.files import pretty_json

        print(pretty_json({"checkpoint": str(found.checkpoint.path), "images": told}), end="", flush=True)
    return DataError.exit_code if faults else 0


def _export(given: Namespace, topology: Topology) -> int:
    _alone(given, topology)
    check_files(given.parser, given.out)
    if not 13 <= given.opset <= 20:
        given.parser.error(f"--opset {given.opset}: expected 13 to 20")
    log.configure(0)
    from hvdtrain.export.write import LIMIT, export
    from hvdtrain.train import trained

    run_dir, config = trained.settings(given.checkpoint)
    found = trained.read(given.checkpoint, run_dir, config, which=given.which)
    weights = trained.AVERAGE if given.average else trained.WEIGHTS
    done = export(found, config, given.format, given.out, weights=weights, opset=given.opset)
    form = f"onnx, opset {given.opset}" if given.format == "onnx" else given.format
    print(f"network     {done.title}{f', {weights}' * given.average}")
    print(
        f"compared    {done.images} pictures: logits differ by {done.difference:.1e} of the largest; limit {LIMIT:.0e}"
    )
    print(f"written     {given.out}: {form}, {done.size:,} bytes", flush=True)
    return 0


def _alone(given: Namespace, topology: Topology) -> None:
    if topology.size > 1:
        given.parser.error(f"one process does it, {topology.launcher} started {topology.size}: call it without")
