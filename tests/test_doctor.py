"""The table that says whether a run would work, and why not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hvdtrain import doctor
from hvdtrain.doctor import machine, mpi, probe, software, variables
from hvdtrain.doctor.finding import GIB, MIB, Finding
from hvdtrain.doctor.mpi import Launcher

HERE = Path(sys.executable).parent
LINKED = {"library": "/usr/lib/libmpi.so.40.30.4", "library_version": "Open MPI v4.1.4, package: Debian OpenMPI"}
TORCH = {"version": "2.13.0+cpu", "cuda": None, "devices": []}
GPUS = {"version": "2.13.0", "cuda": "13.0", "devices": [{"name": "NVIDIA H100", "bytes": 80 * GIB}]}
HOROVOD = {"version": "0.28.1", "mpi": True, "gloo": True, "nccl": False, "cuda": False, **LINKED}


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def hvdtrain(*arguments: str, path: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "import sys; from hvdtrain.cli import main; sys.exit(main())", *arguments]
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.multiproc
def test_everything_here_works() -> None:
    ran = hvdtrain("doctor", "--json", path=f"{HERE}:{os.environ['PATH']}")
    found = {finding["name"]: finding for finding in json.loads(ran.stdout)["findings"]}
    assert not [finding for finding in found.values() if finding["ok"] is False]
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["usable"] is True
    assert list(found) == [
        *(
            "Python",
            "torch",
            "GPU",
            "CUDA toolkit",
            "Horovod",
            "mpirun",
            "MPI library",
            "two workers",
            "tuning",
            "DALI",
        ),
        *("torchvision", "cores", "memory", "open files", "shared memory", "Slurm"),
    ]
    assert found["two workers"]["value"] == "allreduce of 1 and 2 is 3"


@pytest.mark.multiproc
def test_without_mpirun_the_exit_code_is_1_and_the_remedy_is_said(tmp_path: Path) -> None:
    ran = hvdtrain("doctor", path=str(tmp_path))
    assert ran.returncode == 1
    assert "no  mpirun         not on PATH" in ran.stdout
    assert "→" in ran.stdout
    assert "two workers    not tried" in ran.stdout
    assert "ok  DALI" in ran.stdout


def test_only_a_fault_makes_it_unusable() -> None:
    fine, absent, broken = Finding("a", ""), Finding("b", "", None), Finding("c", "", False, "mend it")
    assert doctor.usable([fine, absent])
    assert not doctor.usable([fine, broken, absent])


def test_the_table_keeps_brackets_and_shows_the_remedy_below() -> None:
    lines = doctor.render([Finding("cores", "[0, 1]", False, "buy [more]")]).splitlines()
    assert [line.rstrip() for line in lines] == ["no  cores  [0, 1]", "           → buy [more]"]


def test_json_has_every_finding() -> None:
    record = json.loads(doctor.as_json([Finding("a", "1"), Finding("b", "2", False, "mend it")]))
    assert record == {
        "usable": False,
        "findings": [
            {"name": "a", "value": "1", "ok": True, "remedy": ""},
            {"name": "b", "value": "2", "ok": False, "remedy": "mend it"},
        ],
    }


def test_no_mpirun(only: Path) -> None:
    finding = mpi.mpirun(Launcher.find(), HOROVOD)
    assert (finding.value, finding.ok) == ("not on PATH", False)
    assert "PATH" in finding.remedy


@pytest.mark.parametrize(
    ("says", "value", "ok"),
    [
        ("mpirun (Open MPI) 4.1.4", "Open MPI 4.1.4 at {}", True),
        ("mpirun (Open MPI) 5.0.11", "Open MPI 5.0.11 at {}; Horovod links Open MPI v4.1.4", False),
    ],
)
def test_mpirun_belongs_to_horovods_mpi(only: Path, says: str, value: str, ok: bool) -> None:
    executable(only / "mpirun", f"echo '{says}'")
    finding = mpi.mpirun(Launcher.find(), HOROVOD)
    assert (finding.value, finding.ok) == (value.format(only / "mpirun"), ok)
    assert bool(finding.remedy) is not ok


def test_a_4_1_4_is_not_taken_for_a_4_1_40() -> None:
    linked = {**HOROVOD, "library_version": "Open MPI v4.1.40, package"}
    assert mpi.mpirun(Launcher("/bin/mpirun", "Open MPI", "4.1.4"), linked).ok is False


def test_two_mpis_in_one_process_are_a_fault() -> None:
    same = mpi.mpi_library(HOROVOD, {"version": "4.1.2", **LINKED})
    other = mpi.mpi_library(HOROVOD, {"version": "4.1.2", **LINKED, "library": "/opt/mpich/libmpi.so.12"})
    assert same.ok is True
    assert other.ok is False
    assert "/opt/mpich/libmpi.so.12" in other.value


def test_a_worker_that_dies_is_quoted(only: Path) -> None:
    executable(only / "mpirun", "echo ---- >&2; echo 'RuntimeError: no route to host' >&2; exit 1")
    finding = mpi.workers(Launcher(str(only / "mpirun"), "Open MPI", "4.1.4"), ready=True)
    assert (finding.value, finding.ok) == ("RuntimeError: no route to host", False)


def test_workers_that_do_not_meet_are_a_fault(only: Path) -> None:
    executable(only / "mpirun", "echo 'sum 1 of 1'; echo 'sum 1 of 1'")
    assert mpi.workers(Launcher(str(only / "mpirun"), "Open MPI", "4.1.4"), ready=True).ok is False


def test_workers_are_not_started_under_a_launcher(only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert mpi.workers(Launcher("/no/mpirun", "Open MPI", "4.1.4"), ready=True).ok is None


def test_a_probe_that_crashes_leaves_the_others_facts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (tmp_path / "mpi4py.py").write_text("raise ImportError('libmpi.so: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    facts = probe.ask(["mpi4py", "horovod"])
    assert facts["mpi4py"]["error"] == "ImportError: libmpi.so: cannot open"
    assert facts["horovod"]["error"] == "importing it was killed by signal 11"
    assert software.horovod(facts["horovod"], TORCH).ok is False


def test_horovod_without_nccl_beside_a_gpu_is_a_fault() -> None:
    assert software.horovod(HOROVOD, TORCH).ok is True
    assert software.horovod(HOROVOD, GPUS).ok is False
    assert software.horovod({**HOROVOD, "nccl": True}, GPUS).ok is True
    assert software.horovod({**HOROVOD, "mpi": False}, TORCH).ok is False


def test_a_gpu_that_torch_cannot_use(only: Path) -> None:
    assert software.gpu(TORCH).ok is None
    executable(only / "nvidia-smi", "echo 550.54.15")
    assert software.gpu(TORCH).ok is None, "a CPU build trains on CPUs"
    assert software.gpu({**GPUS, "devices": []}).ok is False
    assert software.gpu(GPUS).value == "1: NVIDIA H100 80 GiB; driver 550.54.15"


def test_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 4096))
    assert machine.open_files().remedy == "ulimit -n 1024"
    assert machine.memory(needed_bytes=2**60).ok is False
    free = shutil.disk_usage(tmp_path)._replace(free=64 * MIB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    assert machine.shared_memory(tmp_path, gpus=0).ok is True
    assert machine.shared_memory(tmp_path, gpus=8).remedy == "docker run --shm-size=2048m, or --ipc=host"


def test_files_that_were_read_take_no_memory_of_a_cgroup(tmp_path: Path) -> None:
    def free(**files: object) -> str:
        for name, content in files.items():
            (tmp_path / f"memory.{name}").write_text(f"{content}\n")
        return machine.memory(0, cgroup=tmp_path).value

    assert free(max=64 * MIB, current=60 * MIB) == "0.0 GiB free of 0.1"
    assert free(stat=f"anon 1\ninactive_file {50 * MIB}\nactive_file {9 * MIB}") == "0.1 GiB free of 0.1"
    assert free(stat=f"inactive_file {80 * MIB}") == "0.1 GiB free of 0.1"  # told a moment later


def test_what_a_run_would_set_is_told_under_who_said_so() -> None:
    told = variables.tuning({"NCCL_ALGO": "Tree", "PATH": "/bin"}, on_cpu=False)
    assert told.ok is True
    assert "environment: NCCL_ALGO=Tree" in told.value
    assert "distributed.yield_when_idle: OMPI_MCA_mpi_yield_when_idle=1" in told.value
    assert "OMPI_MCA_coll_han_priority=0" in told.value
    assert "HOROVOD_CYCLE_TIME" not in told.value
    wrong = variables.tuning({"HOROVOD_FUSION_THRESHOLD": "64MB"}, on_cpu=True)
    assert (wrong.ok, wrong.value) == (False, "HOROVOD_FUSION_THRESHOLD = 64MB: expected a number of bytes")


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, hvdtrain.doctor; print({'torch', 'horovod', 'mpi4py', 'numpy', 'nvidia'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
