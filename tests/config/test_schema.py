"""The schema: its defaults, what it refuses, and what its digest stands for."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hvdtrain.config.schema import Config


def settings(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting that is no section, with its dotted name."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from settings(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


SETTINGS = dict(settings())


def config(key: str, value: Any) -> Config:
    """The default configuration but for one dotted key."""
    *section, name = key.split(".")
    return Config(**{section[0]: {name: value}}) if section else Config(**{name: value})


def value(of: Config, key: str) -> Any:
    found: Any = of
    for part in key.split("."):
        found = getattr(found, part)
    return found


def test_the_defaults_are_the_papers_recipe_for_resnet_50() -> None:
    config = Config()
    data, model, optim = config.data, config.model, config.optim
    assert (model.name, config.epochs, data.image_size, data.batch_size) == ("resnet50", 90, 224, 32)
    assert (model.norm, model.zero_gamma, model.head_std) == ("batch", True, 0.01)
    assert (optim.base_lr, optim.reference_batch, optim.scaling) == (0.1, 256, "linear")
    assert (optim.warmup, optim.warmup_epochs) == ("gradual", 5)
    assert (optim.decay, optim.decay_epochs, optim.decay_factor) == ("step", (30, 60, 80), 0.1)
    assert (optim.name, optim.momentum, optim.nesterov) == ("sgd", 0.9, True)
    assert (optim.weight_decay, optim.decay_biases) == (1e-4, True)
    assert data.crop_area == (0.08, 1)
    assert data.crop_aspect == (3 / 4, 4 / 3)
    assert config.precision == "float32"
    assert config.run_dir == Path("runs") / f"resnet50-{config.digest()}"


def test_what_the_paper_does_not_have_is_off_by_default() -> None:
    config = Config()
    data, train = config.data, config.train
    assert (data.mixup, data.cutmix, data.train_sizes) == (0, 0, ())
    assert (train.global_batch_size, train.label_smoothing, train.clip_norm, train.ema_decay) == (None, 0, None, 0)
    assert (config.optim.end_lr, config.distributed.compression, config.model.compile) == (0, "none", False)
    assert config.evaluation.first_epoch == 0


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_has_a_default_that_is_valid_itself(key: str) -> None:
    assert not SETTINGS[key].is_required()
    default = value(Config(), key)
    if key == "data.image_size":
        assert default == 224
    assert value(config(key, default), key) == default


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_says_what_it_is(key: str) -> None:
    text = SETTINGS[key].description or ""
    assert len(text) > 10
    assert text.endswith(".")


OUT_OF_RANGE = [
    *(("epochs", 0), ("epochs", -1), ("epochs", math.inf), ("epochs", math.nan), ("max_steps", 0), ("seed", -1)),
    *(("run.report_every", 0), ("run.console_seconds", -1)),
    *(("data.batch_size", 0), ("data.image_size", 15), ("data.image_size", 1025), ("data.eval_resize", 0.99)),
    *(("data.crop_area", (0, 1)), ("data.crop_area", (0.5, 1.1)), ("data.crop_aspect", (0, 1)), ("data.flip", 1.01)),
    *(("data.std", (0, 1, 1)), ("data.threads", -1), ("data.prefetch", 0), ("data.mean", (0.5, 0.5))),
    *(("optim.base_lr", 0), ("optim.reference_batch", 0), ("optim.warmup_epochs", -1), ("optim.decay_epochs", (0,))),
    *(("optim.decay_factor", 0), ("optim.decay_factor", 1.1), ("optim.momentum", -0.1), ("optim.momentum", 1.1)),
    *(("optim.weight_decay", -1e-9), ("distributed.bucket_mib", 0)),
    *(("data.mixup", -0.1), ("data.cutmix", -0.1), ("data.train_sizes", ((-1, 128),)), ("data.train_sizes", ((0,),))),
    *(("data.train_sizes", ((0, 15),)), ("data.train_sizes", ((0, 1025),)), ("data.train_sizes", ((0, 99.5),))),
    *(("model.head_std", 0), ("model.head_std", -0.01), ("train.global_batch_size", 0), ("train.clip_norm", 0)),
    *(("train.label_smoothing", -0.1), ("train.label_smoothing", 1), ("train.ema_decay", -0.1), ("train.ema_decay", 1)),
    *(("optim.power", 0), ("optim.end_lr", -1e-9), ("optim.trust_coefficient", 0), ("evaluation.first_epoch", -1)),
    *(("metrics.port", 1023), ("metrics.port", 65001), ("checkpoint.every_epochs", 0)),
    *(("evaluation.every_epochs", 0), ("evaluation.batch_size", 0), ("metrics.stuck_seconds", 0)),
    *(("elastic.commit_steps", 0), ("elastic.ramp_epochs", -1), ("elastic.wait_seconds", 0)),
]


@pytest.mark.parametrize(("key", "wrong"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_under_its_own_name(key: str, wrong: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        config(key, wrong)
    assert {".".join(map(str, error["loc"]))[: len(key)] for error in refused.value.errors()} == {key}


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        *(("epochs", "many"), ("data.batch_size", 1.5), ("data.crop_area", 0.5), ("model.name", "vgg16")),
        *(("precision", "fp8"), ("model.channels_last", "perhaps"), ("distributed.reducer", "ps"), ("run.dir", 3)),
        *(
            ("optim.name", "adam"),
            ("optim.warmup", "linear"),
            ("optim.scaling", "cube"),
            ("optim.decay", "exponential"),
        ),
        *(("distributed.compression", "bf16"), ("model.head_std", "none"), ("optim.end_lr", None)),
        *(("train.global_batch_size", 1.5), ("data.train_sizes", (0, 128)), ("data.train_sizes", None)),
    ],
)
def test_a_value_of_another_kind_is_refused(key: str, wrong: Any) -> None:
    with pytest.raises(ValidationError):
        config(key, wrong)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 5}, "optim.warmup_epochs = 5.0: expected less than epochs = 5"),
        ({"optim": {"decay_epochs": (60, 30)}}, "optim.decay_epochs = (60.0, 30.0): expected rising epochs"),
        ({"optim": {"decay_epochs": (30, 30)}}, "optim.decay_epochs = (30.0, 30.0): expected rising epochs"),
        (
            {"optim": {"decay_epochs": (4, 30)}},
            "optim.decay_epochs = (4.0, 30.0): expected none before the warm-up's end at epoch 5",
        ),
        (
            {"optim": {"decay_epochs": (30,), "warmup": "constant", "warmup_epochs": 30.5}},
            "optim.decay_epochs = (30.0,): expected none before the warm-up's end at epoch 30.5",
        ),
        (
            {"epochs": 5, "optim": {"warmup": "constant", "decay": "cosine"}},
            "optim.warmup_epochs = 5.0: expected less than epochs = 5",
        ),
        ({"data": {"crop_area": (0.9, 0.8)}}, "data.crop_area = (0.9, 0.8): expected smallest first"),
        ({"data": {"crop_aspect": (2, 1)}}, "data.crop_aspect = (2.0, 1.0): expected smallest first"),
        ({"model": {"name": "resnet8"}}, "data.image_size = 224: expected at most 64 with model.name = resnet8"),
        ({"data": {"image_size": 31}}, "data.image_size = 31: expected at least 32 with model.name = resnet50"),
        (
            {"data": {"train_sizes": ((5, 128),)}},
            "data.train_sizes = ((5.0, 128),): expected rising epochs, the first of them 0",
        ),
        (
            {"data": {"train_sizes": ((0, 128), (20, 176), (10, 224))}},
            "data.train_sizes = ((0.0, 128), (20.0, 176), (10.0, 224)): expected rising epochs, the first of them 0",
        ),
        ({"data": {"train_sizes": ((0, 128), (0, 176))}}, "expected rising epochs, the first of them 0"),
        (
            {"data": {"train_sizes": ((0, 128), (10, 31))}},
            "data.train_sizes = 31: expected at least 32 with model.name = resnet50",
        ),
        (
            {"model": {"name": "resnet20"}, "data": {"image_size": 32, "train_sizes": ((0, 16), (3, 65))}},
            "data.train_sizes = 65: expected at most 64 with model.name = resnet20",
        ),
        (
            {"data": {"mixup": 0.2, "batch_size": 33}},
            "data.batch_size = 33: expected an even number with data.mixup or data.cutmix, which pair images",
        ),
        ({"data": {"cutmix": 1, "batch_size": 1}}, "data.batch_size = 1: expected an even number"),
        ({"distributed": {"reducer": "horovod"}}, "model.channels_last = True: expected false with"),
        (
            {"distributed": {"compression": "fp16"}, "precision": "float64"},
            "distributed.compression = fp16: expected none with precision = float64",
        ),
        (
            {"elastic": {"enabled": True}},
            "elastic.enabled = True: expected a train.global_batch_size with it, kept while workers come and go",
        ),
        (
            {"elastic": {"enabled": True}, "train": {"global_batch_size": 256}, "data": {"stage": "copy"}},
            "data.stage = copy: expected none with elastic.enabled",
        ),
        (
            {
                "elastic": {"enabled": True},
                "train": {"global_batch_size": 256},
                "distributed": {"reducer": "horovod"},
                "model": {"channels_last": False},
            },
            "distributed.reducer = horovod: expected buckets with elastic.enabled",
        ),
        ({"run": {"name": "a/b"}}, "run.name = a/b: expected the name of one folder"),
        ({"run": {"name": ".."}}, "run.name = ..: expected the name of one folder"),
        ({"metrics": {"tls_key": "k"}}, "metrics.tls_key = k: expected a metrics.tls_certificate with it"),
        ({"metrics": {"client_ca": "a"}}, "metrics.client_ca = a: expected a metrics.tls_certificate with it"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Config(**given)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 5, "optim": {"warmup_epochs": 0}},
        {"epochs": 5, "optim": {"warmup": "none"}},
        {"epochs": 5, "optim": {"warmup": "none", "warmup_epochs": 5, "decay_epochs": (1, 2)}},
        {"epochs": 5, "optim": {"warmup_epochs": 4.99, "decay": "cosine"}},
        {"optim": {"decay_epochs": (5, 30)}},
        {"optim": {"decay_epochs": (4, 30), "decay": "cosine"}},
        {"optim": {"decay_epochs": (4, 30), "decay": "polynomial"}},
        {"epochs": 0.001, "optim": {"warmup_epochs": 0, "decay_epochs": ()}},
        {"model": {"name": "resnet8"}, "data": {"image_size": 64}},
        {"model": {"name": "resnet20"}, "data": {"image_size": 16}},
        {"data": {"image_size": 32}},
        {"data": {"train_sizes": ((0, 32), (0.5, 1024), (89.5, 64))}},
        {"data": {"train_sizes": ((0, 224), (10, 128))}},
        {"model": {"name": "resnet8"}, "data": {"image_size": 64, "train_sizes": ((0, 16), (1, 64))}},
        {"data": {"mixup": 0.2, "cutmix": 1, "batch_size": 2}},
        {"data": {"batch_size": 33}},
        {"distributed": {"compression": "fp16"}},
        {"distributed": {"compression": "fp16"}, "precision": "fp16"},
        {"precision": "float64"},
        {"train": {"label_smoothing": 0, "ema_decay": 0, "clip_norm": 1e-9, "global_batch_size": 1}},
        {"distributed": {"reducer": "horovod"}, "model": {"channels_last": False}},
        {"data": {"crop_area": (1, 1), "crop_aspect": (1, 1), "flip": 1, "eval_resize": 1}},
        {"metrics": {"tls_certificate": "c"}},
        {"elastic": {"enabled": True, "ramp_epochs": 0}, "train": {"global_batch_size": 256}},
        {"metrics": {"tls_certificate": "c", "tls_key": "k", "client_ca": "a"}},
    ],
)
def test_settings_at_the_edge_of_the_possible_are_accepted(given: dict[str, Any]) -> None:
    Config(**given)


def test_a_configuration_does_not_change() -> None:
    config = Config()
    for change in ("config.epochs = 1", "config.data.batch_size = 1", "config.optim = config.optim"):
        with pytest.raises(ValidationError, match="frozen"):
            exec(change, {"config": config})


NOT_IN_THE_DIGEST = {"resume": "auto", "run.dir": "/elsewhere", "run.name": "x", "run.report_every": 7}
NOT_IN_THE_DIGEST |= {"run.console_seconds": 0, "metrics.address": "0.0.0.0", "metrics.port": 5000}
NOT_IN_THE_DIGEST |= {"run.tensorboard": True}
NOT_IN_THE_DIGEST |= {"run.trace_images": True, "data.stage": "copy", "data.stage_dir": "/fast", "data.cache_dir": "/c"}
NOT_IN_THE_DIGEST |= {"metrics.tls_certificate": "c", "metrics.stuck_seconds": 60, "metrics.baseline": "none"}
NOT_IN_THE_DIGEST |= {"metrics.baseline_steps": 5, "metrics.baseline_workers": 8, "metrics.baselines_dir": "/b"}
NOT_IN_THE_DIGEST |= {"data.max_bad_ratio": 0.5, "data.threads": 1, "data.prefetch": 3, "data.dir": "/d"}
NOT_IN_THE_DIGEST |= {"train.not_finite": "skip", "train.most_skipped": 3, "distributed.watchdog_seconds": 60}
NOT_IN_THE_DIGEST |= {"distributed.preflight": False, "distributed.fabric": "cpu", "distributed.interfaces": ("eth0",)}
NOT_IN_THE_DIGEST |= {"distributed.cycle_milliseconds": 0.5, "distributed.cache_capacity": 0}
NOT_IN_THE_DIGEST |= {"distributed.threads": 2, "distributed.bind": "auto"}
NOT_IN_THE_DIGEST |= {"checkpoint.every_epochs": 2, "checkpoint.keep": 1}
NOT_IN_THE_DIGEST |= {"job.nodes": 2, "job.workers_per_node": 4, "job.gpus_per_node": 4, "job.cores_per_worker": 8}
NOT_IN_THE_DIGEST |= {"job.time_limit": "30", "job.partition": "p", "job.account": "a", "job.launcher": "srun"}
NOT_IN_THE_DIGEST |= {"job.mpi": "pmi2", "job.warn_seconds": 60, "job.max_requeues": 1, "job.modules": ("m",)}
NOT_IN_THE_DIGEST |= {"job.source": (Path("/site.sh"),), "job.container": "x.sif", "job.container_runtime": "pyxis"}
NOT_IN_THE_DIGEST |= {"job.sbatch": {"qos": "high"}, "job.path": "/opt/hvdtrain/bin", "resume_changed": "accept"}
NOT_IN_THE_DIGEST |= {"elastic.commit_steps": 1, "elastic.ramp_epochs": 1, "elastic.wait_seconds": 60}
NOT_ALONE = {"distributed.reducer", "metrics.tls_key", "metrics.client_ca", "elastic.enabled"}
OTHER = {"epochs": 91, "max_steps": 3, "seed": 1, "precision": "bf16", "model.name": "resnet18", "model.norm": "none"}
OTHER |= {"data.device": "cpu", "data.image_size": 128, "data.eval_resize": 2, "data.source": "synthetic"}
OTHER |= {"data.quarantine": "none", "data.decoder": "pillow", "data.train_sizes": ((0, 128), (10, 224))}
OTHER |= {
    "model.head_std": 0.02,
    "train.global_batch_size": 256,
    "train.clip_norm": 1,
    "distributed.compression": "fp16",
    "distributed.hierarchical_allreduce": True,
}
OTHER |= {"train.label_smoothing": 0.1, "train.ema_decay": 0.999, "evaluation.at_end": False}
OTHER |= {"optim.name": "lars", "optim.scaling": "sqrt", "optim.warmup": "none", "optim.decay": "cosine"}
OTHER |= {"optim.decay_epochs": (30, 60), "optim.decay_factor": 0.2, "optim.momentum": 0.8, "data.flip": 0.25}
OTHER |= {"data.crop_area": (0.1, 1), "data.crop_aspect": (1, 1), "data.mean": (0, 0, 0), "data.std": (1, 1, 1)}


def other(key: str) -> Any:
    """A valid value that is not the default."""
    default = value(Config(), key)
    if isinstance(default, bool):
        return not default
    return {**NOT_IN_THE_DIGEST, **OTHER}.get(key, default + 1 if isinstance(default, int | float) else None)


@pytest.mark.parametrize("key", [key for key in SETTINGS if key not in NOT_ALONE])
def test_the_digest_changes_with_all_that_decides_the_numbers_and_nothing_else(key: str) -> None:
    changed = config(key, other(key))
    assert value(changed, key) != value(Config(), key)
    assert (changed.digest() == Config().digest()) == (key in NOT_IN_THE_DIGEST)


@pytest.mark.parametrize("key", ["model.head_std", "train.global_batch_size", "train.clip_norm"])
def test_the_digest_tells_none_from_every_number(key: str) -> None:
    assert len({config(key, given).digest() for given in (None, 1, 2)}) == 3


def test_the_digest_knows_every_size_and_when_it_begins() -> None:
    sizes = [((0, 128),), ((0, 176),), ((0, 128), (10, 176)), ((0, 128), (11, 176)), ()]
    assert len({config("data.train_sizes", given).digest() for given in sizes}) == len(sizes)


def test_the_digest_knows_who_reduces() -> None:
    contiguous = {"model": {"channels_last": False}}
    horovod = Config(**contiguous, distributed={"reducer": "horovod"})
    assert horovod.digest() != Config(**contiguous).digest()


def test_the_digest_is_the_same_for_ever() -> None:
    assert len(Config().digest()) == 8
    assert Config(epochs=12).digest() == Config(epochs=12.0).digest() != Config().digest()
    assert Config(data={"dir": Path("/x")}).digest() == Config(data={"dir": "/x"}).digest()


def test_a_run_has_its_name_from_the_user_or_from_its_configuration() -> None:
    assert Config(run={"name": "mine", "dir": "/runs"}).run_dir == Path("/runs/mine")
    assert Config(seed=1).run_name != Config(seed=2).run_name


@pytest.mark.parametrize("name", ["EPOCHS", "epochs", "SEED", "DATA__BATCH_SIZE", "HVDTRAIN_SEED", "RESUME"])
def test_a_variable_of_the_environment_is_no_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "17")
    assert Config() == Config.model_construct(**dict(Config()))
    assert 17 not in (Config().epochs, Config().seed, Config().data.batch_size)


def test_literal_settings_list_their_values_in_the_schema() -> None:
    assert "resnet50" in get_args(SETTINGS["model.name"].annotation)
    assert get_args(SETTINGS["optim.warmup"].annotation) == ("gradual", "constant", "none")
