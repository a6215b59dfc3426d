"""Out of memory: in what; and in a step which batch would have fitted, found by trying smaller ones on the device."""

import gc
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from hvdtrain.distributed.activity import Activity
from hvdtrain.errors import EnvironmentFault
from hvdtrain.log import logger
from hvdtrain.model.norms import frozen_statistics

# How libraries that have no exception for it put it. oneDNN says nothing else when it gets no memory.
TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "could not create a primitive",
    "std::bad_alloc",
    "can't start new thread",
    "failed to map segment from shared object",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | ImportError) and any(text in str(error) for text in TEXTS)


@contextmanager
def naming(activity: Activity) -> Iterator[None]:
    """Within, memory that runs out ends the run with what the worker was doing; a step has more to say for itself.

    Raises:
        EnvironmentFault: it has.
    """
    try:
        yield
    except (RuntimeError, ImportError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        phase, cause = activity.phase, _cause(error)
        raise EnvironmentFault(f"out of memory in {phase}{cause}", remedy="free -h; ulimit -v; nvidia-smi") from None


def out_of_memory(
    error: BaseException,
    step: Callable[[int], None],
    *,
    n: int,
    workers: int,
    global_batch: int,
    device: torch.device,
    multiple_of: int = 1,
) -> EnvironmentFault:
    """What to tell whoever started a run of which a step with `n` images ended in `error`: which batch fits.

    Meant for the `except` clause: it frees what the failed step holds, and then tries. No other worker is needed.

    Args:
        step: as in `largest_batch`, from `probe`.
        workers: k.
        global_batch: images per optimiser step over all workers.
        multiple_of: what data.batch_size has to be a multiple of.
    """
    _let_go(error)
    logger.info("%s", str(error).partition("\n")[0])
    logger.info("out of memory: trying which data.batch_size below %d fits", n)
    fits = largest_batch(step, n)
    return explain(
        n=n, fits=fits, workers=workers, global_batch=global_batch, place=_place(device), multiple_of=multiple_of
    )


def largest_batch(step: Callable[[int], None], failed: int) -> int:
    """The largest n < failed with which `step` does not run out of memory, 0 if there is none; by bisection.

    Args:
        step: takes n images forward and back, and leaves no memory taken. Called at most log2(failed) times, rounded
            up; what it raises for another reason is passed on.
    """
    fits = 0
    while failed - fits > 1:
        n = (fits + failed) // 2
        try:
            step(n)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = n
        else:
            fits = n
    return fits


def probe(
    model: nn.Module,
    forward: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    *,
    image_size: int,
    dtype: torch.dtype,
    device: torch.device,
    classes: int,
    reserve_bytes: int = 0,
) -> Callable[[int], None]:
    """A step that takes the memory of a training step with n images, and changes nothing.

    It makes the gradients aside: no hook of a `.grad` sees them, so that no allreduce starts which no other worker
    joins. Beside the buckets, which are there already, they take the room of the update's intermediate results.

    Args:
        forward: Arithmetic.forward.
        image_size: height and width of the pictures, pixels.
        dtype: of the pictures.
        reserve_bytes: what training will hold during a step and does not hold yet: the momentum, before it is made.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step(n: int) -> None:
        _give_back(device)  # here, where no exception holds the tensors of the try before
        held = [torch.empty(reserve_bytes, dtype=torch.uint8, device=device)]
        images = torch.empty(
            n, 3, image_size, image_size, dtype=dtype, device=device, memory_format=torch.channels_last
        )
        images.uniform_(generator=torch.Generator(device))  # torch's own one is the run's
        with frozen_statistics(model):
            logits = forward(model, images)
        loss = functional.cross_entropy(logits, torch.arange(n, device=device) % classes)
        held += torch.autograd.grad(loss, parameters)

    return step


def explain(
    *, n: int, fits: int, workers: int, global_batch: int, place: str, multiple_of: int = 1
) -> EnvironmentFault:
    """The message: what fits, and the settings that follow, above all those that leave the minibatch what it is.

    >>> print(explain(n=256, fits=200, workers=8, global_batch=2048, place="NVIDIA H100 (80 GiB)"))
    ... # doctest: +NORMALIZE_WHITESPACE
    out of memory with data.batch_size = 256 on NVIDIA H100 (80 GiB): 200 would fit →
    --data.batch_size 128 --train.global_batch_size 2048 keeps the minibatch,
    --data.batch_size 200 --train.global_batch_size 1600 makes it smaller
    """
    message = f"out of memory with data.batch_size = {n} on {place}"
    share = global_batch // workers  # of each worker, in one or more micro-batches
    possible = range(multiple_of, fits + 1, multiple_of)
    keeping = [b for b in possible if share % b == 0]
    if not keeping:
        return EnvironmentFault(
            f"{message}, and {multiple_of} would not fit", remedy="a smaller data.image_size or model.name"
        )
    remedy = f"--data.batch_size {keeping[-1]} --train.global_batch_size {global_batch} keeps the minibatch"
    if keeping[-1] < possible[-1]:
        smaller = workers * possible[-1] * (share // n)
        remedy += f", --data.batch_size {possible[-1]} --train.global_batch_size {smaller} makes it smaller"
    return EnvironmentFault(f"{message}: {fits} would fit", remedy=remedy)


def _cause(error: BaseException) -> str:
    first = str(error).partition("\n")[0]
    return f": {first}" if first else ""


def _let_go(error: BaseException) -> None:
    """Free the tensors that the frames of a failed step hold, while its exception is still being looked at."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _give_back(device: torch.device) -> None:
    one = torch.ones((), requires_grad=True)
    torch.autograd.grad(one * 1, one)  # what a failed backward had still to do, autograd keeps until the next one
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _place(device: torch.device) -> str:
    if device.type != "cuda":
        return "the CPU"
    total = torch.cuda.get_device_properties(device).total_memory
    return f"{torch.cuda.get_device_name(device)} ({total / 2**30:.0f} GiB)"
