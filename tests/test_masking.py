"""What is written down of an environment, a command line and events has no secret in it."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.tuning import Tuning, Value
from hvdtrain.events import EventLog
from hvdtrain.masking import MASK, SECRET, is_secret, masked, masked_command, masked_fields
from hvdtrain.train.environment import describe

PLAIN = "hunter2"


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_SECRET_ACCESS_KEY", "SLURM_JWT", "api_token", "hf-token", "_HOROVOD_SECRET_KEY", "PGPASSWORD_PASSWD"),
        *("apiKey", "AWSSecretKey", "x.auth", "KEY", "credentials", "OMPI_MCA_password", "GITHUB2TOKEN", "APIKey"),
    ],
)
def test_a_name_with_such_a_word_is_secret(name: str) -> None:
    assert is_secret(name)
    assert masked({name: PLAIN}) == {name: MASK}


@pytest.mark.parametrize(
    "name",
    [
        *("SLURM_JOB_ID", "HOROVOD_MONKEY", "KEYBOARD", "keyed", "AUTHOR", "tokenizer", "PATH", "", "data.dir"),
        *("OMP_NUM_THREADS", "NCCL_SOCKET_IFNAME", "SLURM_JOB_ACCOUNT", "SECRETARY", "monkey", "Passwort"),
    ],
)
def test_a_name_that_only_has_its_letters_is_not(name: str) -> None:
    assert not is_secret(name)
    assert masked({name: PLAIN}) == {name: PLAIN}


@given(
    st.lists(st.sampled_from(["job", "id", "x", "size"]), max_size=3),
    st.sampled_from(sorted(SECRET)),
    st.sampled_from("_.-"),
    st.sampled_from([str.upper, str.lower, str.title]),
    st.integers(0, 3),
)
def test_the_word_may_stand_anywhere_in_any_writing(
    others: list[str], word: str, dash: str, how: Callable[[str], str], at: int
) -> None:
    words = [*others[:at], word, *others[at:]]
    assert is_secret(how(dash.join(words)))
    assert not is_secret(how(dash.join(others)))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://user:pw@host/a", "https://***@host/a"),
        ("https://token@host", "https://***@host"),
        ("s3://u:p@ss@host:80/a@b", "s3://***@host:80/a@b"),
        ("from a://u:p@b and c://u:p@d", "from a://***@b and c://***@d"),
        ("https://host/user@example", "https://host/user@example"),
        ("user:pw@host", "user:pw@host"),
        ("https://host/a?token=pw&b=c", "https://host/a?token=***&b=c"),
        ("ALL,API_TOKEN=pw,B=c", "ALL,API_TOKEN=***,B=c"),
        ("API_TOKEN='p w';B=c", "API_TOKEN=***;B=c"),
        ("a=b", "a=b"),
        ("TOKEN=", "TOKEN="),
    ],
)
def test_secrets_within_a_value(given: str, shown: str) -> None:
    assert masked({"OMPI_MCA_x": given}) == {"OMPI_MCA_x": shown}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--x.token=pw"], ["--x.token=***"]),
        (["--token", "pw", "--seed", "1"], ["--token", "***", "--seed", "1"]),
        (["--auth", "--token", "pw", "x"], ["--auth", "--token", "***", "x"]),
        (["--token", "-pw"], ["--token", "***"]),
        (["-x", "A_KEY=p w", "train"], ["-x", "A_KEY=***", "train"]),
        (["--resume=https://u:pw@h/x", "https://u:pw@h"], ["--resume=https://***@h/x", "https://***@h"]),
        (["--data.dir=/a", "--epochs", "3", "key", "pw"], ["--data.dir=/a", "--epochs", "3", "key", "pw"]),
        (["--metrics.tls_key", "/etc/k.pem"], ["--metrics.tls_key", "***"]),
        ([], []),
    ],
)
def test_a_command_line(given: list[str], shown: list[str]) -> None:
    assert masked_command(given) == shown


def test_fields_of_any_depth_keep_all_that_is_no_secret() -> None:
    fields = {"a": [{"api_key": PLAIN, "b": (1, None, 0.5, True)}], "password": None, "secrets": {"x": PLAIN}, 3: "y"}
    assert masked_fields(fields) == {
        "a": [{"api_key": MASK, "b": [1, None, 0.5, True]}],
        "password": None,
        "secrets": MASK,
        3: "y",
    }


def test_an_image_keeps_its_name() -> None:
    assert masked_fields({"image": "train/n1/key=1.jpg"}) == {"image": "train/n1/key=1.jpg"}


@pytest.mark.parametrize("text", ["a" * 10**6, "://" * 300_000, "a=" * 500_000, "A_" * 500_000, "='" * 500_000])
def test_a_long_text_takes_no_longer_than_its_length(text: str) -> None:
    began = time.process_time()
    masked({"OMPI_MCA_x": text})
    masked_command([text])
    is_secret(text)
    assert time.process_time() - began < 10


def test_a_real_environment_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JWT", PLAIN)
    monkeypatch.setenv("SLURM_EXPORT_ENV", f"ALL,API_TOKEN={PLAIN}")
    monkeypatch.setenv("OMPI_MCA_store", f"https://user:{PLAIN}@host/x")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(sys, "argv", ["hvdtrain", "train", "--token", PLAIN, f"--resume=https://u:{PLAIN}@host/x"])
    told = describe(
        SoloComm(),
        torch.device("cpu"),
        threads=1,
        tuning=Tuning(0, (Value("NCCL_ALGO", f"https://u:{PLAIN}@h", "environment"),), {"HOROVOD_AUTH": PLAIN}),
        bucket_bytes=[],
        endpoint="h:1",
        commit="c",
    )
    assert PLAIN in json.dumps([sys.argv, dict(os.environ)])
    assert PLAIN not in json.dumps(told)
    assert told["variables"]["SLURM_JOB_ID"] == "17"
    assert told["variables"]["SLURM_JWT"] == told["set_by_user"]["HOROVOD_AUTH"] == MASK
    assert told["command"] == ["hvdtrain", "train", "--token", MASK, f"--resume=https://{MASK}@host/x"]


def test_events_have_no_secret(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    events.write("baseline", step=1, origin=f"https://u:{PLAIN}@h", parts={"token": PLAIN, "input": 0.5})
    events.close()
    record = json.loads((tmp_path / "events.jsonl").read_text())
    assert (record["origin"], record["parts"]) == (f"https://{MASK}@h", {"token": MASK, "input": 0.5})
