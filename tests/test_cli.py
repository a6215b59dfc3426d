"""The command line: exit codes, one-line errors on stderr, and who speaks under a launcher."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from hvdtrain import __version__, log
from hvdtrain.cli import PATIENCE_SECONDS, main
from hvdtrain.config.load import ELSEWHERE, from_file
from hvdtrain.config.schema import Config
from hvdtrain.data import demo, scan
from hvdtrain.report import live, read

RANKS = {f"OMPI_COMM_WORLD_{name}": value for name, value in (("RANK", "1"), ("SIZE", "2"), ("LOCAL_RANK", "1"))}
LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "HOROVOD_")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a usage error prints."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hvdtrain: ")
    assert err.count("\n") == 1
    return err


def hvdtrain(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "import sys; from hvdtrain.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_config_prints_the_whole_configuration_as_yaml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config"]) == 0
    text = capsys.readouterr().out
    (tmp_path / "all.yaml").write_text(text)
    assert from_file(tmp_path / "all.yaml") == Config()
    assert list(yaml.safe_load(text)) == list(Config.model_fields)


def test_config_resolves_presets_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--config", "demo", "--data.batch_size", "7", "--optim.weight_decay=1e-3"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["model"]["name"] == "resnet8"
    assert found["data"]["batch_size"] == 7
    assert found["optim"]["weight_decay"] == 0.001


def log_to_nobody() -> None:
    for handler in log.logger.handlers[:]:
        log.logger.removeHandler(handler)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """Twelve images, one of them cut off."""
    for number in range(12):
        path = tmp_path / "data" / ("val" if number > 8 else "train") / f"c{number % 3}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((80, 64), 20 + number).convert("RGB").save(path)
    path = tmp_path / "data" / "train" / "c1" / "4.JPEG"
    path.write_bytes(path.read_bytes()[:-500])
    yield tmp_path / "data"
    log_to_nobody()


def test_data_verify_tells_what_is_wrong_and_how_many(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    assert main(["data", "verify", str(data)]) == 1
    out = capsys.readouterr().out
    assert "truncated" in out
    assert f"{data}/train/c1/4.JPEG" in out.replace("\n", "").replace(" ", "")
    assert f"1 images to leave out, listed in {data}/.hvdtrain/quarantine.jsonl" in out
    assert main(["data", "verify", "--json", "--quarantine", str(data / "list"), str(data)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == {"truncated": 1}
    assert (data / "list").exists()
    (data / "train" / "c1" / "4.JPEG").unlink()
    assert main(["data", "verify", str(data)]) == 0


def test_data_pack_writes_shards_that_are_read_like_the_folders(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    assert main(["data", "pack", str(data), str(tmp_path / "packed"), "--threads", "2"]) == 0
    assert f"12 images in {tmp_path}/packed\n" in capsys.readouterr().out
    found = [scan.find(root / "train", cache=tmp_path, workers=1) for root in (data, tmp_path / "packed")]
    assert found[0].digest == found[1].digest
    assert found[1].shards == ("train-000000.tar",)


@pytest.mark.parametrize("options", [("--max-side", "0"), ("--shard-mb", "-1"), ("--threads", "many")])
def test_data_pack_refuses_what_cannot_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, str]
) -> None:
    assert options[1] in fails(capsys, "data", "pack", str(tmp_path), str(tmp_path / "packed"), *options)


def test_data_prepare_needs_an_archive_and_names_one_that_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["data", "prepare", str(tmp_path / "imagenet")]) == 2
    assert "expected train, or val and devkit, or all" in capsys.readouterr().err
    assert main(["data", "prepare", str(tmp_path / "imagenet"), "--train", str(tmp_path / "none.tar")]) == 4
    assert f"{tmp_path}/none.tar" in capsys.readouterr().err
    assert not (tmp_path / "imagenet").exists()
    log_to_nobody()


def test_data_demo_writes_the_digits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["data", "demo", str(tmp_path / "digits")]) == 0
    assert capsys.readouterr().out == f"1433 training and 364 validation images in {tmp_path}/digits\n"
    assert len(list((tmp_path / "digits" / "val").rglob("*.JPEG"))) == 364


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tran"], "unknown verb tran; expected one of train, launch, "),
        (["tran"], "doctor right after hvdtrain; the nearest is train → hvdtrain --help"),
        (["--config", "demo"], "unknown verb demo; expected one of train, launch, "),
        (
            ["reproduce", "goyal"],
            "unknown experiment goyal; expected one of goyal-mini right after hvdtrain reproduce; the nearest",
        ),
        (["bench", "sum"], "unknown bench sum; expected one of input, allreduce, step, scaling, all right after"),
        (["train", "demo"], "unexpected argument demo; the preset is --config demo → hvdtrain train --help"),
        (["train", "--lr", "0.1"], "unknown option --lr; here it is --optim.base_lr → hvdtrain train --help"),
        (["train", "--gpus=8"], "unknown option --gpus; here it is the launcher's: mpirun -np N hvdtrain train"),
        (
            ["train", "--data", "runs/digits"],
            "data = runs/digits: expected one of the settings in it, such as data.dir",
        ),
        (["config", "--model", "resnet18"], "such as model.name → hvdtrain train --help"),
        ([], "the following arguments are required: VERB"),
        (["data"], "the following arguments are required: VERB → hvdtrain data --help"),
        (["data", "demo"], "the following arguments are required: DIR → hvdtrain data demo --help"),
        (["data", "demo", "a", "b"], "unexpected argument b → hvdtrain data demo --help"),
        (["config", "--data.batchsize", "3"], "unknown option --data.batchsize; the nearest is --data.batch_size"),
        (["train", "--epocs=3"], "unknown option --epocs=3; the nearest is --epochs"),
        (["train", "--data.batch", "3"], "unknown option --data.batch; the nearest is --data.batch_size"),
        (["train", "--data.batch_size", "none"], "data.batch_size = none: expected a valid integer"),
        (["train", "--config", "/no/such.yaml"], "--config /no/such.yaml: No such file or directory; presets are demo"),
        (["train", "--epochs", "5"], "optim.warmup_epochs = 5.0: expected less than epochs = 5"),
        (["doctor", "--jsn"], "unknown option --jsn; the nearest is --json"),
        (["launch"], "no command: expected such as hvdtrain launch mpirun -np 2 hvdtrain train → hvdtrain launch"),
        (["launch", "--grace", "5", "--"], "no command: expected such as"),
        (["launch", "--grace", "0", "mpirun"], "--grace 0: expected more than 0 seconds"),
        (["launch", "--grace", "nan", "mpirun"], "--grace nan: expected more than 0 seconds"),
        (["launch", "--grace=soon", "mpirun"], "argument --grace: invalid float value: 'soon'"),
        (["launch", "--grce", "mpirun"], "unknown option --grce; the nearest is --grace"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(capsys, *arguments)


def test_a_usage_error_says_what_to_type_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, "config", "--zzz").endswith("→ hvdtrain config --help\n")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["config", "-h"], ["data", "--help"], ["launch", "-h"]]
)
def test_help_is_on_stdout_and_no_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: hvdtrain")
    assert err == ""


@pytest.mark.parametrize("verb", [["train"], ["submit"], ["config"], ["resume"], ["bench", "scaling"]])
def test_what_a_verb_does_stands_before_its_settings(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*verb, "--help"])
    usage, _, rest = capsys.readouterr().out.partition("\n\n")
    assert usage.startswith(f"usage: hvdtrain {' '.join(verb)} [-h]")
    assert usage.endswith("[--SETTING VALUE ...]")
    assert not any(f"--{section}." in usage for section in Config.model_fields)
    assert "--job.nodes" in rest


def test_what_other_trainers_call_a_setting_is_one_of_ours() -> None:
    options = {f"--{key}" for key in Config().settings()} | {"--config"}
    ours = {words.split()[0] for words in ELSEWHERE.values()}
    assert ours - options == {"the", "CUDA_VISIBLE_DEVICES="}


def test_the_help_of_train_has_every_setting_with_its_text_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--optim.weight_decay float L2 penalty on weights" in text
    assert "--data.batch_size int Images per worker and forward pass: the paper's n, over" in text
    assert "--config FILE" in text


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"hvdtrain {__version__}\n"


def test_a_launchers_nonsense_is_a_fault_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert main(["config"]) == 3
    assert "expected a rank from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no"), "RuntimeError: no (at "),
        (ConnectionRefusedError(111, "Connection refused"), "ConnectionRefusedError: "),
    ],
)
def test_a_bug_shows_its_traceback_and_exit_code_1(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "write", raising(error))
    assert main(["data", "demo", "somewhere"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith(f"hvdtrain: {told}")


def raising(error: Exception) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied → ls -ld /a"),
        (OSError(28, "No space left on device"), "No space left on device → df -h; df -i"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "write", raising(error))
    assert main(["data", "demo", "somewhere"]) == 3
    assert capsys.readouterr().err == f"hvdtrain: {told}\n"
    monkeypatch.setattr(read, "open_events", raising(error))
    monkeypatch.setattr(live, "open_events", raising(error))
    for verb in ("status", "report"):
        assert main([verb, "/a/run"]) == 3
        assert capsys.readouterr().err == f"hvdtrain: {told}\n"


def test_a_place_that_cannot_be_written_is_one_line(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    for verb in (
        ["demo", "/proc/nowhere"],
        ["verify", str(data), "--quarantine", "/proc/list"],
        ["pack", str(data), str(tmp_path / "taken")],
    ):
        assert main(["data", *verb]) == 3
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("hvdtrain: ")
        assert " → " in lines[-1]
        assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", "runs/r50", "--json"),
        ("eval", "runs/r50", "--figure"),
        ("export", "runs/r50", "--format", "onnx", "--out"),
        ("report", "runs/r50", "--html"),
        ("reproduce", "goyal-mini", "--json"),
        ("bench", "allreduce", "--json"),
    ],
)
def test_where_results_go_is_looked_at_first(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert "hvdtrain: .: expected a file to write, got a folder" in fails(capsys, *arguments, ".")
    assert "hvdtrain: /missing/x: no folder /missing" in fails(capsys, *arguments, "/missing/x")


def test_of_many_ranks_the_first_tells_a_usage_error_and_another_only_if_nobody_ended_it() -> None:
    """A launcher ends all as soon as rank 0 has left. Who is still there then has a failure that rank 0 has not."""
    for rank, who, patience in (("0", "", 0.0), ("1", "rank 1: ", PATIENCE_SECONDS)):
        began = time.monotonic()
        ran = hvdtrain("train", "--seed", "-1", **{**RANKS, "OMPI_COMM_WORLD_RANK": rank})
        assert ran.returncode == 2
        assert ran.stdout == ""
        (line,) = ran.stderr.splitlines()
        assert line.startswith(f"hvdtrain: {who}seed = -1: ")
        assert time.monotonic() - began >= patience


def test_of_many_ranks_each_tells_its_own_failure_under_its_number() -> None:
    ran = hvdtrain("data", "demo", "/proc/nowhere", **RANKS)
    assert ran.returncode == 3
    assert ran.stderr.startswith("hvdtrain: rank 1: /proc/nowhere: No such file or directory")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--jobs", "-1"], "--jobs -1: expected 1 at least"),
        (["--seeds", "9-3"], "--seeds 9-3: 9-3 falls; expected 3-9"),
        (["--seeds", "3,3"], "--seeds 3,3: 3 stands twice"),
    ],
)
def test_a_reproduction_that_cannot_be_is_refused_before_it_makes_a_folder(
    given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mini"
    assert main(["reproduce", "goyal-mini", "--dir", str(folder), *given]) == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("between", [[], ["--"], ["--grace", "9"], ["--grace=9", "--"]])
def test_what_follows_the_launcher_is_its_own(between: list[str]) -> None:
    ran = hvdtrain("launch", *between, "printf", "%s,", "--", "--grace", "--help", "-x=1")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "--,--grace,--help,-x=1,", "")


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("mpirum", "hvdtrain: no mpirum beside "),
        ("/no/mpirun", "hvdtrain: /no/mpirun: expected a program that can be executed → ls -l /no/mpirun\n"),
    ],
)
def test_a_launcher_that_is_not_there_is_a_fault_of_the_environment(
    launcher: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", launcher, "-np", "2"]) == 3
    assert capsys.readouterr().err.startswith(message)


def test_a_launcher_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    (tmp_path / "mpirun").write_text("echo no first line that names a shell")
    (tmp_path / "mpirun").chmod(0o755)
    ran = hvdtrain("launch", str(tmp_path / "mpirun"))
    assert ran.returncode == 3
    assert ran.stderr.startswith(f"hvdtrain: {tmp_path}/mpirun cannot be started: Exec format error")
