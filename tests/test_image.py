"""The images and compose.yaml, as far as that can be told without building them: docker/test-image.sh does that."""

import difflib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

import hvdtrain
from hvdtrain.cli import main

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile", "Dockerfile.cpu")
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def instructions(name: str) -> list[str]:
    """One a line, without comments and with one blank between words."""
    lines = [line for line in (DOCKER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [" ".join(line.split()) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def copied(name: str) -> list[str]:
    """What the file takes from the checkout."""
    copies = [shlex.split(line)[1:] for line in instructions(name) if line.startswith("COPY ")]
    return [source for words in copies if not words[0].startswith("--") for source in words[:-1]]


def mounts(service: str) -> dict[str, str]:
    """Where in the container each folder, file or volume is."""
    pairs = (mount.split(":") for mount in SERVICES[service]["volumes"])
    return {inside: outside for outside, inside, *_ in pairs}


# What may differ between the two: the base, the GPU, where the CPU's torch is, the compiler for Triton, one label.
DIFFERENT = re.compile(
    r"FROM (nvidia/cuda|debian):|ENV HVDTRAIN_GPU=[01] HVDTRAIN_INSTALL=copy XDG_CACHE_HOME=/var/cache/build$"
    r"|ARG PIP_EXTRA_INDEX_URL=|RUN apt-get update|LABEL "
)


def test_the_images_are_made_alike() -> None:
    compared = difflib.ndiff(*map(instructions, DOCKERFILES))
    differing = [line for line in compared if line[0] in "+-"]
    assert differing
    assert [line for line in differing if not DIFFERENT.match(line[2:])] == []


def test_they_install_the_same_packages_but_for_a_compiler() -> None:
    gpu, cpu = (
        next(
            set(re.findall(r"--no-install-recommends ([^&]*)&&", line)[0].split())
            for line in lines
            if "apt-get" in line
        )
        for lines in map(instructions, DOCKERFILES)
    )
    assert cpu == {"openmpi-bin", "openssh-client", "python3"}
    assert gpu - cpu == {"g++", "python3-dev"}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_both_stages_stand_on_one_release(name: str) -> None:
    build, final = [line.split()[1] for line in instructions(name) if line.startswith("FROM ")]
    assert re.sub("-(devel|runtime)-", "-", build) == re.sub("-(devel|runtime)-", "-", final)
    assert ":" in build


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_not_ignored(name: str) -> None:
    sources = copied(name)
    assert {"docker/setup.sh", "constraints.txt", "setup.cfg", "hvdtrain"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    first, *kept = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == set(sources)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_anybody_and_says_what_it_is(name: str) -> None:
    lines = instructions(name)
    (user,) = [line for line in lines if line.startswith("USER ")]
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)  # a number: Kubernetes can tell that it is not root
    assert not [line for line in lines if line.startswith(("ENTRYPOINT", "VOLUME"))]
    assert f'org.opencontainers.image.version="{hvdtrain.__version__}"' in " ".join(lines)
    assert not [line for line in lines[lines.index(user) :] if "/root" in line]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = shutil.which("hadolint")
    assert hadolint, "docker/setup.sh brings it"
    ran = subprocess.run([hadolint, DOCKER / name], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_setup_knows_no_third_way_to_install() -> None:
    environment = {**os.environ, "HVDTRAIN_INSTALL": "image"}
    ran = subprocess.run([DOCKER / "setup.sh"], capture_output=True, text=True, check=False, env=environment)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == "setup: error: got HVDTRAIN_INSTALL=image, wanted copy or nothing\n"


def test_compose_yaml_is_valid() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    compose = PyCompose.from_yaml(text)
    compose.validate()
    assert compose.service_names() == ["workers", "prometheus", "grafana"]
    for right, wrong in [
        ("read_only:", "read_olny:"),
        ("shm_size: 512m", "shm_size: much"),
        ("init: true", "init: []"),
    ]:
        with pytest.raises(ValueError, match=r"services\.workers"):
            PyCompose.from_yaml(text.replace(right, wrong))


def test_compose_mounts_what_is_there() -> None:
    outside = [outside for service in SERVICES for outside in mounts(service).values()]
    folders = [path for path in outside if path.startswith(".")]
    assert folders
    assert [path for path in folders if not (DOCKER / path).exists()] == []
    assert {name for name in outside if not name.startswith(".")} == set(COMPOSE["volumes"])
    build = SERVICES["workers"]["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert build["dockerfile"] == "docker/Dockerfile.cpu"


def test_compose_gives_prometheus_its_files_and_the_workers_targets() -> None:
    prometheus = yaml.safe_load((DOCKER / "monitoring" / "prometheus.yml").read_text())
    inside = mounts("prometheus")
    assert inside["/etc/prometheus/prometheus.yml"] == "./monitoring/prometheus.yml"
    for file in prometheus["rule_files"]:
        assert inside[f"/etc/prometheus/{file}"] == f"./monitoring/{file}"
    (pattern,) = prometheus["scrape_configs"][0]["file_sd_configs"][0]["files"]
    runs = str(Path(pattern).parents[1])
    assert pattern == f"{runs}/.targets/*.json"
    assert inside[runs] == mounts("workers")[runs] == "runs"
    assert f"--run.dir {runs} " in SERVICES["workers"]["command"][-1]
    assert SERVICES["workers"]["hostname"] == "workers"  # the name of the service, by which Prometheus finds it


def test_compose_gives_grafana_its_datasource_and_dashboards() -> None:
    inside = mounts("grafana")
    provisioning = DOCKER / inside["/etc/grafana/provisioning"] / "datasources" / "prometheus.yml"
    (datasource,) = yaml.safe_load(provisioning.read_text())["datasources"]
    assert datasource["url"] == "http://prometheus:9090"
    assert "prometheus" in SERVICES
    (provider,) = yaml.safe_load((provisioning.parents[1] / "dashboards" / "hvdtrain.yml").read_text())["providers"]
    dashboards = DOCKER / inside[provider["options"]["path"]]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (dashboards / home.name).exists()


def test_the_workers_command_is_one_that_hvdtrain_takes(capsys: pytest.CaptureFixture[str]) -> None:
    *_, script = SERVICES["workers"]["command"]
    prepare, train = script.replace("\\\n", " ").splitlines()
    assert shlex.split(prepare)[:3] == ["hvdtrain", "data", "demo"]
    words = shlex.split(train.replace("$$EPOCHS", "200"))
    assert words[:4] == ["exec", "mpirun", "-np", "2"]
    assert main(["config", *words[words.index("train") + 1 :]]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["epochs"] == 200
    assert config["data"]["dir"] == f"{config['run']['dir']}/digits"
    assert shlex.split(prepare)[3] == config["data"]["dir"]


@pytest.mark.parametrize("port", ["9090:9090", "3000:3000"])
def test_what_asks_no_password_is_open_to_this_machine_alone(port: str) -> None:
    published = [line for service in SERVICES.values() for line in service.get("ports", ())]
    assert len(published) == 2
    assert f"127.0.0.1:{port}" in published
