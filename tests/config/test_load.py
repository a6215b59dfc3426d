"""Presets, files and options -> one configuration, or an error that says what to type instead."""

from pathlib import Path

import pytest

from hvdtrain.config.load import Parser, add_options, from_file, from_options, to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.config.yaml_file import presets
from hvdtrain.errors import ConfigError
from hvdtrain.slurm.submit import resolved
from hvdtrain.train import trained

from ..trained import random_run


def load(*arguments: str) -> Config:
    parser = Parser(prog="hvdtrain train")
    source = add_options(parser)
    return from_options(source, parser.parse_args(arguments))


def yaml(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


def refused(*arguments: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(*arguments)
    return str(error.value)


def test_without_arguments_the_defaults_hold() -> None:
    assert load() == Config()


def test_options_override_the_file_which_overrides_the_defaults(tmp_path: Path) -> None:
    file = yaml(tmp_path, "data: {batch_size: 8, flip: 0.25}\nseed: 3\noptim: {base_lr: 0.2}\n")
    config = load("--config", file, "--data.batch_size", "16", "--optim.momentum", "0.5")
    assert (config.data.batch_size, config.data.flip, config.data.image_size) == (16, 0.25, 224)
    assert (config.optim.momentum, config.optim.base_lr, config.optim.weight_decay) == (0.5, 0.2, 1e-4)
    assert config.seed == 3


def test_an_option_equal_to_the_default_overrides_the_file(tmp_path: Path) -> None:
    file = yaml(tmp_path, "seed: 3\nmax_steps: 5\n")
    assert load("--config", file, "--seed=0").seed == 0


@pytest.mark.parametrize("text", ["1e-3", "1E-3", ".001", "0.001"])
def test_a_small_number_is_a_number_however_it_is_written(text: str, tmp_path: Path) -> None:
    assert load("--optim.weight_decay", text).optim.weight_decay == 0.001
    assert load("--config", yaml(tmp_path, f"optim: {{weight_decay: {text}}}")).optim.weight_decay == 0.001


@pytest.mark.parametrize("text", ["[0.25,0.5]", "0.25,0.5", "[0.25, 0.5]"])
def test_a_list_may_be_written_with_brackets_or_without(text: str) -> None:
    assert load("--data.crop_area", text).data.crop_area == (0.25, 0.5)


@pytest.mark.parametrize(("text", "meant"), [("[]", ()), ("[30]", (30,)), ("30", (30,)), ("1,2.5", (1, 2.5))])
def test_a_list_of_any_length(text: str, meant: tuple[float, ...]) -> None:
    assert load("--optim.warmup", "none", "--optim.decay_epochs", text).optim.decay_epochs == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [("[[0,128],[10,176]]", ((0, 128), (10, 176))), ("[[0, 128], [0.5, 176]]", ((0, 128), (0.5, 176))), ("[]", ())],
)
def test_a_list_of_pairs_is_json(text: str, meant: tuple[tuple[float, int], ...], tmp_path: Path) -> None:
    assert load("--data.train_sizes", text).data.train_sizes == meant
    assert load("--config", yaml(tmp_path, f"data: {{train_sizes: {text}}}")).data.train_sizes == meant


@pytest.mark.parametrize(
    "text", ["[0,128],[10,176]", "[[0,128],[10,176]", "0,128", "128", "[[0,128.5]]", "[[0,128,3]]"]
)
def test_what_is_no_list_of_pairs_is_refused_under_its_name(text: str) -> None:
    assert "data.train_sizes" in refused("--data.train_sizes", text)


@pytest.mark.parametrize("key", ["model.head_std", "train.clip_norm", "train.global_batch_size", "max_steps"])
def test_null_means_none_where_none_is_possible(key: str, tmp_path: Path) -> None:
    section, _, name = key.rpartition(".")
    file = yaml(tmp_path, f"{section}: {{{name}: 7}}" if section else f"{name}: 7")
    for config, wanted in ((load("--config", file), 7), (load("--config", file, f"--{key}", "null"), None)):
        assert getattr(getattr(config, section) if section else config, name) == wanted
    assert f"{key} = none: expected " in refused(f"--{key}", "none")


@pytest.mark.parametrize("key", ["optim.base_lr", "optim.end_lr", "run.name", "data.train_sizes"])
def test_null_is_refused_where_none_is_not_possible(key: str) -> None:
    assert key in refused(f"--{key}", "null")


@pytest.mark.parametrize("word", ["none", "'none'"])
def test_none_is_a_word_where_it_is_a_choice(word: str, tmp_path: Path) -> None:
    assert load("--optim.warmup", word.strip("'")).optim.warmup == "none"
    assert load("--config", yaml(tmp_path, f"optim: {{warmup: {word}}}")).optim.warmup == "none"


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("false", False), ("True", True), ("0", False)])
def test_a_switch(text: str, meant: bool, tmp_path: Path) -> None:
    assert load("--distributed.ring", text).distributed.ring is meant
    assert load("--config", yaml(tmp_path, f"distributed: {{ring: {text}}}")).distributed.ring is meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {base_rl: 1}", "unknown setting optim.base_rl; the nearest is optim.base_lr"),
        ("epoch: 1", "unknown setting epoch; the nearest is epochs"),
        ("batch_size: 1", "unknown setting batch_size; the nearest is data.batch_size"),
        ("zzzzzz: 1", "unknown setting zzzzzz →"),
        ("data: {batch_size: lots}", "data.batch_size = lots: expected a valid integer"),
        ("data: {batch_size: 0}", "data.batch_size = 0: expected greater than or equal to 1"),
        ("model: {name: vgg16}", "model.name = vgg16: expected 'resnet18', "),
        ("data: 3", "data = 3: expected one of the settings in it, such as data.dir"),
        ("data: {crop_area: [1]}", "data.crop_area.1"),
        ("epochs: 5", "optim.warmup_epochs = 5.0: expected less than epochs = 5"),
        ("optim: {decay_epochs: [3]}", "optim.decay_epochs = (3.0,): expected none before the warm-up's end"),
        ("train: {batch_size: 1}", "unknown setting train.batch_size; the nearest is train.global_batch_size"),
        ("optim: {zero_gamma: true}", "unknown setting optim.zero_gamma; the nearest is model.zero_gamma"),
        ("data: {train_sizes: [[5, 128]]}", "data.train_sizes = ((5.0, 128),): expected rising epochs"),
        ("- 1\n- 2", "expected a mapping of settings, got a list"),
        ("hello", "expected a mapping of settings, got a str"),
        ("a: [1", "not YAML"),
        ("a: b: c", "not YAML"),
        ("!!python/object/apply:os.system [id]", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_and_the_place_is_named(text: str, message: str, tmp_path: Path) -> None:
    assert message in refused("--config", yaml(tmp_path, text))


def test_every_mistake_has_its_line() -> None:
    message = refused("--data.batch_size", "x", "--seed", "-1", "--optim.base_lr", "0")
    assert [line.split(" = ")[0] for line in message.splitlines()] == ["seed", "data.batch_size", "optim.base_lr"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.batchsize", "3"], "unknown option --data.batchsize; the nearest is --data.batch_size"),
        (["--epocs=3"], "unknown option --epocs=3; the nearest is --epochs"),
        (["--data.batch_size"], "argument --data.batch_size: expected one argument"),
        (["--data.batch", "3"], "unknown option --data.batch; the nearest is --data.batch_size"),
        (["--data.batch_size", "1.5"], "data.batch_size = 1.5: expected a valid integer"),
        (["--data.crop_area", "0.1,x"], "data.crop_area.1 = x: expected a valid number"),
        (["--precision", "fp8"], "fp8"),
    ],
)
def test_a_wrong_option_is_refused_and_named(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


def test_a_list_that_does_not_end_is_named() -> None:
    assert "data.crop_area = [0.1,1: expected a list such as" in refused("--data.crop_area", "[0.1,1")


def test_a_file_that_is_not_there_is_refused_with_the_presets(tmp_path: Path) -> None:
    message = refused("--config", str(tmp_path / "no.yaml"))
    assert f"--config {tmp_path / 'no.yaml'}: No such file" in message
    assert "demo" in message


def test_a_folder_or_a_picture_is_no_configuration(tmp_path: Path) -> None:
    assert "Is a directory" in refused("--config", str(tmp_path))
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff\xfe")
    assert "not text" in refused("--config", str(tmp_path / "picture.yaml"))


def test_a_setting_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    assert "twice" in refused("--config", yaml(tmp_path, "seed: 1\nseed: 2\n"))


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "unknown setting 1" in refused("--config", yaml(tmp_path, "1: 2\n"))


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load("--config", yaml(tmp_path, "# nothing\n")) == Config()


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_whole(preset: str) -> None:
    assert load("--config", preset) != Config()


def test_the_demo_is_small() -> None:
    demo = load("--config", "demo")
    assert (demo.model.name, demo.data.image_size, demo.data.flip, demo.epochs) == ("resnet8", 32, 0, 12)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config", "demo"],
        ["--optim.weight_decay", "1e-5", "--max_steps", "3", "--optim.decay_epochs", "[]", "--run.name", "007"],
        ["--data.train_sizes", "[[0,128],[0.1,176]]", "--model.head_std", "null", "--train.global_batch_size", "8192"],
        ["--model.head_std", "1e-3", "--train.clip_norm", "0.5", "--optim.decay", "cosine", "--optim.end_lr", "1e-7"],
        ["--data.dir", "/a b/ü", "--precision", "float64", "--resume", "auto", "--run.name", "no"],
    ],
)
def test_a_configuration_written_to_a_file_and_read_again_is_equal(arguments: list[str], tmp_path: Path) -> None:
    config = load(*arguments)
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert from_file(path) == config
    assert from_file(path).digest() == config.digest()
    assert load("--config", str(path)) == config


def test_a_variable_of_the_environment_does_not_get_in_through_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEED", "17")
    monkeypatch.setenv("epochs", "17")
    assert load() == Config()


@pytest.mark.parametrize("text", ["a", "a,b", "{a", '{"a":'])
def test_names_and_values_are_asked_for_as_such(text: str) -> None:
    wanted = f"job.sbatch = {text}: expected NAME=VALUE, such as qos=high → "
    assert refused("--job.sbatch", text).startswith(wanted)
    assert refused("--job.sbatch", "qos=high", "--job.sbatch", text).startswith(wanted)


@pytest.mark.parametrize("given", [[], ["--job.sbatch", "qos=high"], ["--job.sbatch", '{"qos":"high"}']])
def test_names_and_values_are_not_blamed_for_a_list(given: list[str]) -> None:
    assert refused(*given, "--data.crop_area", "[a").startswith("data.crop_area = [a: expected a list")


@pytest.mark.parametrize("key", ["metrics.baselines_dir", "data.cache_dir"])
def test_a_home_that_is_not_known_is_refused_but_read(key: str, tmp_path: Path) -> None:
    wanted = f"{key} = ~nobody-here/a: expected a folder, got a home that is not known here → --{key} DIR, or HOME=DIR"
    assert refused(f"--{key}", "~nobody-here/a") == wanted
    section, name = key.split(".")
    file = yaml(tmp_path, f"{section}: {{{name}: ~nobody-here/a}}")
    assert refused("--config", file) == wanted
    config = from_file(Path(file))  # as of a run of another host
    assert config.settings()[key] == "~nobody-here/a"


def test_a_job_needs_homes_of_all_paths() -> None:
    config = load("--run.dir", "~nobody-here/runs")
    with pytest.raises(ConfigError, match=r"run.dir = ~nobody-here/runs: expected a folder, got a home"):
        resolved(config)


def test_a_run_of_another_host_is_read_without_its_home(tmp_path: Path) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8")
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace("~/.cache/hvdtrain\n", "~nobody-here\n"))
    _, config = trained.settings(run)
    assert str(config.data.cache_dir) == "~nobody-here"
    assert trained.read(run, run, config, which="newest").classes is None
