"""What a step leaves behind: weights, the scale of the loss, the average; and that a checkpoint has all of it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.amp import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.config.schema import Config
from hvdtrain.data.loader import Batch
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import NotFinite
from hvdtrain.train.build import Parts, build
from hvdtrain.train.data import Machine
from hvdtrain.train.state import TrainState
from hvdtrain.train.step import train_step

from .workers import Worker, assert_close, assert_equal, batch, beside, cut, state, step_together, without

CPU = torch.device("cpu")
DECAY = 0.75


def scaler(scale: float = 2.0**16, growth_interval: int = 2000) -> GradScaler:
    """One that knows its scale from the beginning, as hvdtrain.train.build makes it."""
    made = GradScaler("cpu", init_scale=scale, growth_interval=growth_interval)
    made.scale(torch.zeros(()))
    return made


def averaging(of: TrainState) -> TrainState:
    of.average = AveragedModel(of.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    return of


def scaled(scale: float = 2.0**16, **options: Any) -> TrainState:
    return averaging(state(dtype=torch.float32, scaler=scaler(scale, **options)))


def everything(of: TrainState) -> dict[str, torch.Tensor]:
    """All tensors that training moves, by name: weights, momentum, average."""
    assert of.average is not None
    momenta = of.optimizer.state_dict()["state"]
    found = {
        **{f"model.{name}": tensor for name, tensor in of.model.state_dict().items()},
        **{f"average.{name}": tensor for name, tensor in of.average.state_dict().items()},
        **{f"momentum.{number}": values["momentum_buffer"] for number, values in momenta.items()},
    }
    return {name: tensor.clone() for name, tensor in found.items()}


@contextmanager
def spoilt(worker: Worker, value: float = math.inf) -> Iterator[None]:
    """Within, forward goes well, and backward makes gradients inf or nan."""
    hook = worker.state.model.get_parameter("head.weight").register_hook(lambda gradient: gradient * value)
    yield
    hook.remove()


def overflow(worker: Worker, on: Batch) -> None:
    with spoilt(worker):
        worker.step(on)


def saved_and_read(of: TrainState, folder: Path) -> dict[str, Any]:
    path = store.save(folder, of.tensors(), Manifest(images_seen=8, step=1, config_digest="c", data_digest="d"))
    return form.tensors(form.read(path).data, CPU)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_scaled_loss_gives_the_same_step_to_the_last_bit(clip: float | None) -> None:
    """Scales are powers of two. What is clipped is the gradient as it will be used."""
    ours, plain = (
        Worker(averaging(state(dtype=torch.float32, scaler=s)), micro_batches=2, clip_norm=clip)
        for s in (scaler(growth_interval=2), None)
    )
    for seed in range(5):
        losses = [worker.step(*cut(batch(seed=seed), 2)) for worker in (ours, plain)]
        assert losses[0] == losses[1]
        assert_equal(everything(ours.state), everything(plain.state))
        assert not ours.state.overflown
    assert ours.state.scaler is not None
    assert ours.state.scaler.get_scale() == 2**18


def test_what_goes_backward_is_scaled() -> None:
    of = state(scaler=scaler(1024))
    assert float(of.scaled(torch.tensor(3.0))) == 3 * 1024
    assert float(state().scaled(torch.tensor(3.0))) == 3


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_gradient_that_is_not_finite_on_one_worker_leaves_the_step_out_on_all(value: float, victim: int) -> None:
    workers = [Worker(scaled(), comm, clip_norm=0.1) for comm in beside(2)]
    step_together(workers, [[half] for half in cut(batch(), 2)])
    before = [everything(worker.state) for worker in workers]
    parts = cut(batch(seed=1), 2)
    with spoilt(workers[victim], value):
        step_together(workers, [[part] for part in parts])
    for worker, was in zip(workers, before, strict=True):
        assert_equal(everything(worker.state), was)
        assert worker.state.overflown
        assert worker.state.scaler is not None
        assert worker.state.scaler.get_scale() == 2**15

    step_together(workers, [[half] for half in cut(batch(seed=2), 2)])
    assert not any(worker.state.overflown for worker in workers)
    left, right = (everything(worker.state) for worker in workers)
    assert_equal(left, right)
    still = [name for name in left if torch.equal(left[name], before[0][name])]
    assert still == []  # weights, momentum and average go on


def test_the_scale_grows_after_so_many_good_steps_in_a_row() -> None:
    worker = Worker(scaled(64, growth_interval=3))
    grown, good = [], batch()
    for spoil in (False, False, True, False, False, False, False):
        overflow(worker, good) if spoil else worker.step(good)
        assert worker.state.scaler is not None
        grown.append(worker.state.scaler.get_scale())
        assert worker.state.overflown == spoil
    assert grown == [64, 64, 32, 32, 32, 64, 64]


def test_a_sum_too_large_for_what_travels_leaves_the_step_out_on_all_workers() -> None:
    """Each worker's gradient fits into half precision; their sum does not."""
    on = batch(4)
    alone = Worker(state(dtype=torch.float32))
    alone.step(on, lr=0)
    largest = float(alone.gradient.abs().max())
    scale = 2.0 ** math.floor(math.log2(65504 / largest))
    assert largest * scale <= 65504 < 2 * largest * scale

    alone = Worker(scaled(scale), wire=torch.float16)
    alone.step(on)
    assert not alone.state.overflown

    workers = [Worker(scaled(scale), comm, wire=torch.float16) for comm in beside(2)]
    before = workers[0].weights
    step_together(workers, [[on], [on]])
    for worker in workers:
        assert worker.state.overflown
        assert_equal(worker.weights, before)
    step_together(workers, [[on], [on]])
    for worker in workers:
        assert not worker.state.overflown
        assert all(bool(tensor.isfinite().all()) for tensor in everything(worker.state).values())
    assert_equal(workers[0].weights, workers[1].weights)
    assert not torch.equal(workers[0].weights["head.weight"], before["head.weight"])


def test_what_travels_in_half_precision_steps_nearly_as_what_does_not() -> None:
    """Lost images are made up for all the same."""
    parts = cut(batch(), 2)
    parts[1] = without(parts[1], {0, 3})
    half, full = (
        [Worker(scaled(1024), comm, wire=wire) for comm in beside(2)] for wire in (torch.float16, torch.float32)
    )
    step_together(half, [[part] for part in parts])
    step_together(full, [[part] for part in parts])
    far = (half[0].gradient - full[0].gradient).norm() / full[0].gradient.norm()
    assert 0 < far < 2**-10


def test_the_average_follows_the_weights_and_the_statistics() -> None:
    """w' ← decay · w' + (1 - decay) · w after each step, beginning with the weights after the first."""
    worker = Worker(averaging(state("batch")))
    names = [name for name, tensor in worker.weights.items() if tensor.is_floating_point()]
    assert "stem.1.running_var" in names
    wanted: dict[str, torch.Tensor] = {}
    for seed in range(4):
        worker.step(batch(seed=seed))
        now = worker.weights
        wanted = {name: DECAY * wanted.get(name, now[name]) + (1 - DECAY) * now[name] for name in names}
        assert worker.state.average is not None
        found = worker.state.average.module.state_dict()
        assert_close({name: found[name] for name in names}, wanted)
    assert not torch.equal(wanted["stem.1.running_var"], now["stem.1.running_var"])
    assert not torch.equal(wanted["head.weight"], now["head.weight"])


def test_a_step_that_is_left_out_leaves_the_average_its_statistics_too() -> None:
    """Forward was well, and the network's own statistics have moved."""
    worker = Worker(averaging(state("batch", torch.float32, scaler=scaler())))
    worker.step(batch(seed=1))
    before, weights = everything(worker.state), worker.weights
    overflow(worker, batch(seed=2))
    assert worker.state.overflown
    moved = {name for name, tensor in everything(worker.state).items() if not torch.equal(tensor, before[name])}
    assert moved == {f"model.{name}" for name in weights if name.endswith(("_mean", "_var", "_tracked"))}
    worker.step(batch(seed=3))
    assert all(bool(tensor.isfinite().all()) for tensor in everything(worker.state).values())


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_state_goes_through_a_checkpoint_and_back(norm: str, tmp_path: Path) -> None:
    """Weights, statistics, momentum, average, and the scale with the good steps since it last changed."""

    def fresh(seed: int) -> Worker:
        return Worker(averaging(state(norm, torch.float32, seed=seed, scaler=scaler(256, growth_interval=3))))

    ours, other = fresh(0), fresh(1)
    ours.step(batch(seed=1))
    overflow(ours, batch(seed=2))
    ours.step(batch(seed=3))
    ours.state.images_seen, ours.state.step = 24, 3
    other.state.load(saved_and_read(ours.state, tmp_path))
    assert (other.state.images_seen, other.state.step) == (24, 3)
    for seed, scale in ((4, 128), (5, 256)):
        for worker in (ours, other):
            worker.step(batch(seed=seed))
            assert worker.state.scaler is not None
            assert worker.state.scaler.get_scale() == scale
        assert_equal(everything(ours.state), everything(other.state))


def test_a_checkpoint_holds_what_the_state_has_and_no_more(tmp_path: Path) -> None:
    assert saved_and_read(state(), tmp_path / "plain").keys() == {"progress", "generators", "model", "optimizer"}
    assert saved_and_read(scaled(), tmp_path / "all").keys() == {
        *("progress", "generators", "model", "optimizer", "scaler", "average")
    }


class OneOfTwo(SoloComm):
    """Long enough to build a run's parts."""

    size = 2


def built(comm: SoloComm | None = None, **settings: Any) -> Parts:
    config = Config(
        data={"source": "synthetic", "image_size": 16, "batch_size": 4}, model={"name": "resnet8"}, **settings
    )
    return build(config, comm or SoloComm(), Machine(CPU, threads=1), bucket_bytes=10_000)


def test_a_worker_whose_first_batch_is_all_lost_knows_its_scale_all_the_same() -> None:
    parts = built(precision="fp16")
    empty = without(batch(4), range(4))
    loss = train_step(
        parts.state,
        [empty],
        lr=0.1,
        objective=parts.objective,
        arithmetic=parts.arithmetic,
        reducer=parts.reducer,
        clock=parts.clock,
    )
    assert float(loss) == 0
    assert not parts.state.overflown
    assert parts.state.scaler is not None
    assert parts.state.scaler.get_scale() == 2**16


@pytest.mark.parametrize(
    ("settings", "has_scaler", "has_average"),
    [
        ({}, False, False),
        ({"precision": "bf16", "train": {"ema_decay": 0.9}}, False, True),
        ({"precision": "fp16"}, True, False),
        ({"distributed": {"compression": "fp16"}}, True, False),
    ],
)
def test_a_run_has_what_its_configuration_asks_for(
    settings: dict[str, Any], has_scaler: bool, has_average: bool
) -> None:
    for comm in (SoloComm(), OneOfTwo()):
        parts = built(comm, **settings)
        assert (parts.state.scaler is not None, parts.state.average is not None) == (has_scaler, has_average)
    travelling = sum(parts.reducer.sizes) / sum(p.numel() for p in parts.state.model.parameters())  # bytes
    assert travelling == pytest.approx(2 if settings.get("distributed") else 4, rel=0.02)


def test_a_runs_average_has_its_decay_and_takes_the_statistics_along() -> None:
    parts = built(train={"ema_decay": DECAY})
    model, average = parts.state.model, parts.state.average
    assert average is not None
    for value in (1.0, 0.0):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.fill_(value)
        average.update_parameters(model)
    averaged = {name: tensor for name, tensor in average.module.state_dict().items() if tensor.is_floating_point()}
    assert "stem.1.running_mean" in averaged
    assert all(bool((tensor == DECAY).all()) for tensor in averaged.values())


def test_a_run_that_diverges_in_half_precision_ends_instead_of_leaving_out_every_step() -> None:
    """Some forty steps after the first that is not finite: 2^16 to 2^-24."""
    diverged = Worker(scaled())
    left_out = 0
    with pytest.raises(NotFinite, match="training has diverged") as raised, spoilt(diverged):
        while left_out < 100:
            diverged.step(batch(2))
            left_out += 1
    assert left_out == 40
    assert "optim.base_lr" in str(raised.value)
