"""What hvdtrain-discover prints: the whole list, or one line and no list."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from horovod.runner.elastic import discovery

from hvdtrain import discover

from .slurm.fakes import calls, command
from .test_house import HEAVY

ROOT = Path(__file__).parents[1]
CPU_SECONDS = 0.1  # of a core of its own; horovodrun asks every second
NAMES = ("n1", "n2", "n3", "n10")


def run(*arguments: str | Path, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SQUEUE_"))}
    return subprocess.run(
        [sys.executable, "-m", "hvdtrain.discover", *arguments],
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert discover.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line."""
    assert discover.main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("hvdtrain-discover: ")
    return err


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that no network need know."""

    def gethostbyname(name: str) -> str:
        if name not in NAMES:
            raise OSError(-2, "Name or service not known")
        return "127.0.0.1"

    monkeypatch.setattr("socket.gethostbyname", gethostbyname)


@pytest.fixture
def hostfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "hosts"


def test_a_hostfile_is_printed_in_its_order_with_slots(hostfile: Path) -> None:
    hostfile.write_text(
        "# the cluster\n\n127.0.0.2 slots=8  # two boards\n  localhost\n127.0.0.1:4\n127.0.0.3 slots = 2"
    )
    ran = run("hosts", "--slots", "3", folder=hostfile.parent)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "127.0.0.2:8\nlocalhost:3\n127.0.0.1:4\n127.0.0.3:2\n"
    assert run("hosts", folder=hostfile.parent).stdout.splitlines()[1] == "localhost:1"


def test_horovod_reads_what_is_printed(hostfile: Path) -> None:
    hostfile.write_text("localhost slots=2\n127.0.0.2:1\n")
    script = discovery.HostDiscoveryScript(f"{sys.executable} -m hvdtrain.discover {hostfile}", None)
    assert script.find_available_hosts_and_slots() == {"localhost": 2, "127.0.0.2": 1}
    hostfile.write_text("")
    with pytest.raises(RuntimeError, match="Exit code: 2"):
        script.find_available_hosts_and_slots()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "hosts: got no host, wanted one in each line"),
        ("# nobody\n", "hosts: got no host"),
        ("n1\nn2 8\n", "hosts:2: got 'n2 8', wanted host, host:8 or host slots=8"),
        ("n1 slots=8 max_slots=9", "hosts:1: got 'n1 slots=8 max_slots=9', wanted host"),
        ("n1\n-oProxyCommand=reboot", "hosts:2: got '-oProxyCommand=reboot', wanted host"),
        ("n1;reboot", "hosts:1: got 'n1;reboot', wanted host"),
        ("$(reboot):2", "hosts:1: got '$(reboot):2', wanted host"),
        ("me@n1", "hosts:1: got 'me@n1', wanted host"),
        ("::1", "hosts:1: got '::1', wanted host"),
        ("\udcff\udcfe", "hosts:1: got '��', wanted host"),
        ("n1:", "hosts:1: got 'n1:', wanted host"),
        ("n1:eight", "hosts:1: slots: got 'eight', wanted a whole number from 1 to 1024"),
        ("n1 slots=0", "hosts:1: slots: got '0', wanted a whole number from 1"),
        ("n1 slots=-2", "hosts:1: slots: got '-2', wanted a whole number from 1"),
        ("n1:1.5", "hosts:1: slots: got '1.5', wanted"),
        ("n1:٣", "hosts:1: slots: got '٣', wanted"),
        ("n1:4000", "hosts:1: slots: got '4000', wanted a whole number from 1 to 1024"),
        ("n1\nn2\n\nN1:2", "hosts:4: got N1 again, wanted each host once → see hosts:1"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_printed(
    hostfile: Path, capsys: pytest.CaptureFixture[str], resolved: None, text: str, message: str
) -> None:
    hostfile.write_text(text, errors="surrogateescape")
    assert refused(capsys, "hosts").startswith(f"hvdtrain-discover: {message}")


def test_a_host_without_an_address_is_named(hostfile: Path, capsys: pytest.CaptureFixture[str], resolved: None) -> None:
    hostfile.write_text("n1\n\nn4:2\n")
    assert refused(capsys, "hosts", code=3) == (
        "hvdtrain-discover: hosts:3: got n4 (Name or service not known), wanted a host with an IPv4 address"
        " → getent ahostsv4 n4\n"
    )


def test_a_name_that_is_none_needs_no_network_to_be_refused(hostfile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostfile.write_text("a..b")
    assert "hosts:1: got a..b (no name of a host)" in refused(capsys, "hosts", code=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got neither, wanted a hostfile or --slurm → hvdtrain-discover --help"),
        (["hosts", "--slurm"], "got both, wanted a hostfile or --slurm"),
        (["--slurm"], "got no $SLURM_JOB_ID, wanted --slurm inside a job, or --slurm NAME → squeue --me"),
        (["hosts"], "hosts: No such file or directory, wanted a hostfile → ls -l hosts"),
        (["."], ".: Is a directory, wanted a hostfile"),
        (["hosts", "--slots", "none"], "--slots: got 'none', wanted a whole number"),
        (["hosts", "--slots=0"], "--slots: got '0', wanted a whole number from 1"),
        (["hosts", "more"], "unrecognized arguments: more → hvdtrain-discover --help"),
        (["hosts", "--slot=3"], "unrecognized arguments: --slot=3"),
    ],
)
def test_a_command_line_that_is_wrong_is_one_line(
    hostfile: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert refused(capsys, *arguments).startswith(f"hvdtrain-discover: {message}")


def test_it_is_quick_and_imports_nothing_heavy(hostfile: Path) -> None:
    hostfile.write_text("localhost\n")
    run("hosts", folder=hostfile.parent)  # compiles it
    used = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("hosts", folder=hostfile.parent).stdout == "localhost:1\n"
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    print(f"CPU seconds: {min(used):.3f} to {max(used):.3f}")
    assert min(used) < CPU_SECONDS
    program = f"""
import sys
from hvdtrain import discover
assert discover.main(["hosts"]) == 0
heavy = {(*HEAVY, "numpy", "pydantic", "yaml", "psutil", "hvdtrain.config")!r}
print([name for name in heavy if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=hostfile.parent, capture_output=True, text=True)
    assert ran.stdout == "localhost:1\n[]\n"


def test_its_name_is_a_command() -> None:
    metadata = ConfigParser()
    metadata.read(ROOT / "setup.cfg")
    assert f"{discover.PROGRAM} = hvdtrain.discover:main" in metadata["options.entry_points"]["console_scripts"]


def test_help_has_an_example_and_the_cooldown_that_horovod_really_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as end:
        discover.main(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert '--host-discovery-script "hvdtrain-discover hosts"' in text
    now, waits = 1e9, []
    state = discovery.HostState((30, 600))
    monkeypatch.setattr("horovod.runner.elastic.discovery.time.time", lambda: now)
    for _ in range(6):
        bounds = []
        for drawn in (0.0, 1.0):
            monkeypatch.setattr("random.uniform", lambda low, high, drawn=drawn: drawn)
            before = state._blacklist_count
            state.blacklist()
            bounds.append(round(state._cooldown_period_end_ts - now))
            state._blacklist_count, state._cooldown_period_end_ts = before, 0
        waits.append(tuple(bounds))
        state._blacklist_count += 1
        state.whitelist()
    assert waits == [(60, 90), (120, 150), (240, 270), (480, 510), (600, 600), (600, 600)]
    assert "after 60 to 90 s, 120 to 150 s, 240 to 270 s, 480 to 510 s, and 600 s from the fifth on" in text
    for_good = discovery.HostState()
    for_good.blacklist()
    now += 1e9
    assert not for_good.is_resurrected()


SQUEUE = """
echo 'n[1-2]|gres:gpu:a100:4|r50'
echo 'n10|N/A|r50'
echo 'n3|gres/gpu:8|other'
"""
SINFO = 'for n in n1 n2 n3 n10; do echo "$n|mixed"; done'


class Slurm:
    """squeue and sinfo that are scripts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SQUEUE_", "SINFO_"))]:
            monkeypatch.delenv(name)

    def answers(self, squeue: str, sinfo: str = SINFO) -> None:
        command(self.folder, "squeue", squeue)
        command(self.folder, "sinfo", sinfo)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolved: None) -> Slurm:
    return Slurm(tmp_path / "bin", monkeypatch)


def test_nodes_of_jobs_of_a_name_by_name(slurm: Slurm, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.answers(SQUEUE)
    assert printed(capsys, "--slurm", "r50") == "n1:4\nn10:1\nn2:4\n"
    assert printed(capsys, "--slurm", "r50", "--slots", "2") == "n1:2\nn10:2\nn2:2\n"
    assert printed(capsys, "--slurm=other") == "n3:8\n"
    (asked, *_) = calls(slurm.folder, "squeue")
    assert asked == f"--noheader --states=RUNNING --user={os.getuid()} --format=%N|%b|%j"
    assert calls(slurm.folder, "sinfo")[0].endswith("--nodes=n[1-2],n10")


def test_nodes_of_this_job(slurm: Slurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    slurm.answers("echo 'n[1-2]|N/A|a|name'")
    assert printed(capsys, "--slurm") == "n1:1\nn2:1\n"
    assert "--jobs=17" in calls(slurm.folder, "squeue")[0]
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
    assert printed(capsys, "--slurm") == "n1:2\nn2:2\n"
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    assert printed(capsys, "--slurm") == "n1:4\nn2:4\n"
    assert printed(capsys, "--slurm", "a|name") == "n1:4\nn2:4\n"
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "many")
    assert "SLURM_NTASKS_PER_NODE: got 'many', wanted a whole number" in refused(capsys, "--slurm")


def test_a_node_of_two_jobs_has_the_slots_of_both(slurm: Slurm, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.answers("echo 'n[1-2]|gres:gpu:2|r50'; echo 'n2|gres:gpu:1|r50'")
    assert printed(capsys, "--slurm", "r50") == "n1:2\nn2:3\n"


@pytest.mark.parametrize(
    "state", ["down", "down*", "drained", "draining", "drained*", "fail", "failing", "idle*", "allocated*", "inval"]
)
def test_a_node_that_is_not_in_order_is_left_out(slurm: Slurm, capsys: pytest.CaptureFixture[str], state: str) -> None:
    slurm.answers("echo 'n[1-2]|N/A|r50'", f"echo 'n1|allocated'; echo 'n2|{state}'; echo 'n2|{state}'")
    assert printed(capsys, "--slurm", "r50") == "n1:1\n"
    slurm.answers("echo 'n2|N/A|r50'", f"echo 'n2|{state}'")
    why = f"sinfo: got none of 1 nodes in order (n2 is {state}), wanted one → sinfo -R"
    assert why in refused(capsys, "--slurm", "r50", code=3)


@pytest.mark.parametrize("state", ["allocated", "mixed", "idle", "completing", "reserved", "maint", "mixed-"])
def test_a_node_in_another_state_stays(slurm: Slurm, capsys: pytest.CaptureFixture[str], state: str) -> None:
    slurm.answers("echo 'n1|N/A|r50'", f"echo 'n1|{state}'")
    assert printed(capsys, "--slurm", "r50") == "n1:1\n"


@pytest.mark.parametrize(
    ("squeue", "message"),
    [
        ("", "squeue: got no node, wanted running jobs of the name 'r50' → squeue --me"),
        ("echo 'n1|N/A|another'", "squeue: got no node"),
        (
            "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1",
            "squeue: got slurm_load_jobs error: Unable to contact slurm controller, wanted a list → sinfo shows",
        ),
        ("exit 3", "squeue: got exit code 3, wanted a list"),
        ("echo 'n[1-x]|N/A|r50'", "squeue: got nodes 'n[1-x]', wanted such as n[1-4]"),
        ("echo 'n1;reboot|N/A|r50'", "squeue: got nodes 'n1;reboot', wanted such as"),
        ("echo 'n4|N/A|r50'", "sinfo: got none of 1 nodes in order (n1 is mixed)"),
    ],
)
def test_what_slurm_does_not_say_is_one_line(
    slurm: Slurm, capsys: pytest.CaptureFixture[str], squeue: str, message: str
) -> None:
    slurm.answers(squeue, "echo 'n1|mixed'")
    assert refused(capsys, "--slurm", "r50", code=3).startswith(f"hvdtrain-discover: {message}")


def test_a_node_without_an_address_or_a_sinfo_that_fails_is_one_line(
    slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm.answers("echo 'n[3-4]|N/A|r50'", "echo 'n3|mixed'; echo 'n4|mixed'")
    assert "squeue: got n4 (Name or service not known), wanted a host" in refused(capsys, "--slurm", "r50", code=3)
    slurm.answers("echo 'n3|N/A|r50'", "echo no >&2; exit 1")
    assert "sinfo: got no, wanted a list" in refused(capsys, "--slurm", "r50", code=3)


def test_no_slurm_and_one_that_hangs_are_one_line(
    slurm: Slurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(slurm.folder))
    why = "squeue: No such file or directory on PATH, wanted a list"
    assert why in refused(capsys, "--slurm", "r50", code=3)
    monkeypatch.setenv("PATH", f"{slurm.folder}:/usr/bin:/bin")
    monkeypatch.setattr(discover, "ANSWER_SECONDS", 0.2)
    slurm.answers("exec sleep 60")
    assert "squeue: got no answer within 0.2 s" in refused(capsys, "--slurm", "r50", code=3)


def test_what_a_person_has_set_for_squeue_changes_nothing(
    slurm: Slurm, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_PARTITION", "another")
    monkeypatch.setenv("SINFO_FORMAT", "%P")
    slurm.answers('echo "n1|N/A|r50${SQUEUE_PARTITION:-}"', 'echo "n1|${SINFO_FORMAT:-mixed}"')
    assert printed(capsys, "--slurm", "r50") == "n1:1\n"
