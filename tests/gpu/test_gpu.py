"""The same paths with another device. Skipped, and counted, where there is no GPU."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.checkpoint.writer import Writer
from hvdtrain.data import demo, scan
from hvdtrain.data.dali import DaliDecoder
from hvdtrain.data.decoder import Pictures, Request
from hvdtrain.data.loader import Batch
from hvdtrain.data.storage import Folders
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.reducer import LocalReducer
from hvdtrain.model.build import build
from hvdtrain.train.clock import CudaTime, StepClock
from hvdtrain.train.finite import Finite
from hvdtrain.train.state import TrainState

from ..train.workers import Worker, batch, cut, joined, state, without

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda", 0)
HVDTRAIN = str(Path(sys.executable).with_name("hvdtrain"))


def pictures(
    folder: Path, *, decode_on_gpu: bool, device: torch.device, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    files = scan.scan(folder, workers=2)
    decoder = DaliDecoder(
        batch_size=16,
        pictures=Pictures(48, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), dtype),
        decode_on_gpu=decode_on_gpu,
        device=device,
        threads=2,
        prefetch=2,
        by_name=True,
        largest=(32, 32),
    )
    windows = np.array([[2, 3, 24, 22]] * 16, np.float32)
    flips = np.arange(16) % 2 == 0
    storage = Folders(folder, files)
    requests = [
        Request(storage.fetch(np.arange(i, i + 16))(), windows, windows.astype(np.int32), flips) for i in (0, 16, 32)
    ]
    return list(decoder.decode(requests))


def test_gpu_decodes_the_pictures_that_the_cpu_decodes(tmp_path: Path) -> None:
    demo.write(tmp_path)
    on_gpu = pictures(tmp_path / "train", decode_on_gpu=True, device=GPU)
    on_cpu = pictures(tmp_path / "train", decode_on_gpu=False, device=torch.device("cpu"))
    carried = pictures(tmp_path / "train", decode_on_gpu=False, device=GPU)
    for gpu, cpu, copy in zip(on_gpu, on_cpu, carried, strict=True):
        assert gpu.device == copy.device == GPU
        assert gpu.is_contiguous(memory_format=torch.channels_last)
        assert copy.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(copy.cpu(), cpu)  # normalised there, from the same bytes
        assert float((gpu.cpu() - cpu).abs().mean()) < 0.5 / 255 / 0.5  # half a grey level; std is 0.5


def test_the_clock_tells_the_devices_time_without_waiting_for_it() -> None:
    clock = StepClock(CudaTime())
    began = time.perf_counter()
    with clock.spent_on("compute"):
        torch.cuda._sleep(200_000_000)  # cycles: a tenth of a second and more
    clock.ready()
    clock.summed()
    enqueued = time.perf_counter() - began
    ((waited, computed, ready, total),) = clock.take()
    passed = time.perf_counter() - began
    assert waited == 0
    assert 5 * enqueued < computed <= ready <= total < passed


def test_the_gpu_gives_half_precision_pictures_as_the_cpu_does(tmp_path: Path) -> None:
    demo.write(tmp_path)
    half, on_cpu = torch.float16, torch.device("cpu")
    on_gpu = pictures(tmp_path / "train", decode_on_gpu=True, device=GPU, dtype=half)
    cpu = pictures(tmp_path / "train", decode_on_gpu=False, device=on_cpu, dtype=half)
    for ours, theirs in zip(on_gpu, cpu, strict=True):
        assert ours.dtype == theirs.dtype == half
        assert float((ours.cpu().float() - theirs.float()).abs().mean()) < 0.5 / 255 / 0.5


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build("resnet8", classes=10, norm="batch", zero_gamma=False, head_std=None).to(GPU)


def test_gradients_in_buckets_equal_plain_ones_on_the_gpu() -> None:
    plain, bucketed = (network().to(memory_format=torch.channels_last) for _ in range(2))
    buckets = GradientBuckets(bucketed.parameters(), SoloComm(), 50_000)
    images = torch.randn(8, 3, 32, 32, device=GPU).to(memory_format=torch.channels_last)
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        for _ in range(2):
            buckets.start()
            bucketed(images).square().sum().backward()
            buckets.wait()
        for _ in range(2):
            plain.zero_grad()
            plain(images).square().sum().backward()
    assert len(buckets.sizes) > 2
    for a, b in zip(bucketed.parameters(), plain.parameters(), strict=True):
        assert a.grad is not None
        assert torch.equal(a.grad, b.grad)


def worker(state: TrainState, **options: Any) -> Worker:
    state.model.to(GPU)
    return Worker(state, **options)


def on_gpu(parts: list[Batch]) -> list[Batch]:
    return [replace(part, images=part.images.to(GPU), labels=part.labels.to(GPU)) for part in parts]


@pytest.mark.parametrize("local", [False, True])
def test_micro_batches_with_lost_images_step_on_the_gpu_as_the_whole_does_on_the_cpu(local: bool) -> None:
    """Clipping and label smoothing too."""
    options: dict[str, Any] = {"label_smoothing": 0.1, "clip_norm": 0.2}
    of = state()
    ours = worker(of, micro_batches=2, reducer=LocalReducer(of.model) if local else None, **options)
    theirs = Worker(state(), kn=6, **options)
    for seed in range(3):
        first, second = cut(batch(seed=seed), 2)
        parts = [without(first, {1, 2}), second]
        assert ours.step(*on_gpu(parts)) == pytest.approx(theirs.step(joined(parts)), rel=1e-9)
    for name, tensor in ours.weights.items():
        torch.testing.assert_close(tensor.cpu(), theirs.weights[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("wire", [None, torch.float16])
def test_a_step_that_is_not_finite_is_left_out_on_the_gpu(wire: torch.dtype | None) -> None:
    scaler = torch.amp.GradScaler(GPU.type, init_scale=1024)
    ours = worker(state(dtype=torch.float32, scaler=scaler), wire=wire)
    ours.step(*on_gpu([batch(seed=0)]))
    before = ours.weights
    hook = ours.state.model.get_parameter("head.weight").register_hook(lambda gradient: gradient * torch.inf)
    ours.step(*on_gpu([batch(seed=1)]))
    hook.remove()
    assert ours.state.overflown
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.weights.items())
    ours.step(*on_gpu([batch(seed=2)]))
    assert not ours.state.overflown
    assert not torch.equal(ours.weights["head.weight"], before["head.weight"])
    assert scaler.get_scale() == 512


@pytest.mark.parametrize("certain", [False, True])
def test_a_loss_that_is_not_finite_is_known_on_the_gpu_at_once_or_with_the_next_step(certain: bool) -> None:
    of = state(dtype=torch.float32)
    of.model.to(GPU)
    of.finite = Finite(certain=certain)
    ours = worker(of)
    ours.step(*on_gpu([batch()]))
    assert ours.state.finite.failed(now=True) is None
    spoilt = on_gpu([batch(seed=1)])
    spoilt[0].images[0, 0, 0, 0] = torch.nan
    before = ours.weights
    ours.step(*spoilt)
    failed = ours.state.finite.failed(now=False)
    assert (failed is None) == (not certain)
    if certain:
        assert all(torch.equal(tensor, before[name]) for name, tensor in ours.weights.items())
    else:
        failed = ours.state.finite.failed(now=True)
    assert failed is not None
    assert failed.loss.isnan()


def test_what_is_known_of_a_step_is_read_while_the_next_one_goes_on() -> None:
    finite, yes, loss = Finite(certain=False), torch.ones((), dtype=torch.bool, device=GPU), torch.ones((), device=GPU)
    finite.allows(1, yes, loss)
    torch.cuda._sleep(2_000_000_000)  # cycles: a second and more
    finite.allows(2, yes, loss)
    began = time.perf_counter()
    assert finite.failed(now=False) is None
    read = time.perf_counter() - began
    torch.cuda.synchronize()
    assert 5 * read < time.perf_counter() - began


def test_a_save_copies_from_the_gpu_what_the_state_was(tmp_path: Path) -> None:
    weights = torch.randn(1000, 1000, device=GPU)
    kept = weights.cpu()
    with Writer(tmp_path, keep=3) as writer:
        for images_seen in (1, 2):
            writer.save({"w": weights}, Manifest(images_seen, 1, config_digest="c", data_digest="d"))
            weights.zero_()
    first, second = (
        form.tensors(form.read(path).data, torch.device("cpu"))["w"] for path in store.paths(tmp_path)[::-1]
    )
    assert torch.equal(first, kept)
    assert not second.any()


NCCL = """
import os
import torch, horovod.torch as hvd
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import HorovodComm
from hvdtrain.distributed.topology import from_environment
from hvdtrain.model.build import build

comm = HorovodComm(from_environment(os.environ), activity=Activity())
assert hvd.nccl_built()
device = torch.device("cuda", comm.local_rank)
torch.cuda.set_device(device)
torch.manual_seed(0)
model = build("resnet8", classes=10, norm="none", zero_gamma=False, head_std=None).double().to(device)
buckets = GradientBuckets(model.parameters(), comm, 50_000)
images = torch.randn(4 * comm.size, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
mine = images[4 * comm.rank : 4 * comm.rank + 4].to(device)
buckets.start()
model(mine).square().sum().backward()
buckets.wait()
together = [p.grad.clone() for p in model.parameters()]
buckets.start()
whole = build("resnet8", classes=10, norm="none", zero_gamma=False, head_std=None).double().to(device)
whole.load_state_dict(model.state_dict())
whole(images.to(device)).square().sum().backward()
far = max(float((a - p.grad).abs().max() / p.grad.abs().max()) for a, p in zip(together, whole.parameters()))
total = torch.full((1000,), float(comm.rank + 1), device=device)
comm.wait(comm.start_sum(total, "total"))
assert float(total[0]) == comm.size * (comm.size + 1) / 2, total[0]
print("FAR", far, flush=True)
comm.close()
"""


def test_horovod_sums_buckets_by_nccl(tmp_path: Path) -> None:
    """On as many workers as there are GPUs: NCCL takes one process per GPU."""
    script = tmp_path / "nccl.py"
    script.write_text(NCCL)
    workers = torch.cuda.device_count()
    output = mpirun(workers, sys.executable, str(script))
    distances = [float(line.split()[1]) for line in output.splitlines() if line.startswith("FAR")]
    assert len(distances) == workers
    assert max(distances) < 1e-10


@pytest.mark.parametrize(
    "recipe",
    [
        *(["--precision=float32"], ["--precision=bf16"], ["--precision=fp16"]),
        ["--precision=bf16", "--distributed.compression=fp16", "--train.ema_decay=0.9"],
    ],
)
def test_demo_learns_on_the_gpu(tmp_path: Path, recipe: list[str]) -> None:
    demo.write(tmp_path / "digits")
    options = [f"--data.dir={tmp_path}/digits", f"--run.dir={tmp_path}", "--run.name=demo", *recipe]
    mpirun(torch.cuda.device_count(), HVDTRAIN, "train", "--config=demo", *options)
    records = [json.loads(line) for line in (tmp_path / "demo" / "events.jsonl").read_text().splitlines()]
    assert [r["images"] for r in records if r["event"] == "evaluate"] == [364] * 12
    assert next(r["top1"] for r in reversed(records) if r["event"] == "evaluate") >= 0.97
    averages = [r["average_top1"] for r in records if r["event"] == "evaluate" and "average_top1" in r]
    assert len(averages) == (12 if "--train.ema_decay=0.9" in recipe else 0)
    assert all(average >= 0.97 for average in averages[-1:])
    environment = json.loads((tmp_path / "demo" / "environment.json").read_text())
    assert all(worker["device"].startswith("cuda") for worker in environment["workers"])


def mpirun(workers: int, *command: str) -> str:
    path = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert path
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        [path, "--bind-to", "none", "-np", str(workers), *command],
        env={**os.environ, **root},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
