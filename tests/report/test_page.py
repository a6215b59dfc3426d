"""`hvdtrain report`: a page that needs nothing else, a twin for machines, and what it cannot do."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hvdtrain.cli import main
from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError
from hvdtrain.report.page import report
from tests.report.made import Made, write
from tests.report.test_scaling import BENCH
from tests.report.test_timeline import REAL

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Text, tags and pictures of a page; fails where a tag is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.pictures: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert name not in ("href", "onload", "onerror"), (tag, name)
            if name == "src":
                self.pictures.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    file = tmp_path / "scaling.json"
    file.write_text(json.dumps(BENCH))
    return file


def page(folders: list[Path], **options: Path) -> Page:
    said = report(folders, html=Path("report.html"), **options)
    assert said
    html = Path("report.html").read_text()
    assert "<script" not in html
    assert not re.search(r"(?i)(https?:)?//\w", re.sub(r'src="data:[^"]+"', "", html))
    found = Page(html)
    assert all(picture.startswith("data:image/png;base64,iVBOR") for picture in found.pictures)
    return found


def test_one_run(runs: Path) -> None:
    found = page([write(runs / "r50", Made(workers=8, windows=9).with_fault("input", 0.05, rank=3))], timeline=REAL)
    assert len(found.pictures) == 4
    for words in (
        "1 worker alone, measured by this run itself",
        "1. waiting for input",
        "rank 3 waits 50.6 ms a step",
        "--data.stage copy",
        "gradients.3",
        "besides training",
    ):
        assert words in found.text, words
    assert not {"script", "link", "a", "iframe"} & set(found.seen)


def test_several_runs(runs: Path, bench: Path) -> None:
    same = Config.model_validate({"precision": "bf16", "data": {"batch_size": 256}})
    folders = [write(runs / f"r{k}", Made(workers=k, windows=4, config=same)) for k in (1, 2, 8)]
    found = page(folders, scaling=bench)
    assert len(found.pictures) == 2 + 1 + 2 + 2 + 1  # together; losses and, of several workers, lags; the proof
    assert "Side by side" in found.text
    assert "at least 75 % up to k = 64" in found.text


def test_runs_on_several_numbers_of_workers_make_a_proof(runs: Path) -> None:
    folders = [write(runs / f"r{k}", Made(workers=k, windows=4)) for k in (1, 2, 8)]
    assert "E(k|1) = (X(k)/k) / (X(1)/1), X in images/s: at least 75 % up to k = 8" in " ".join(report(folders).split())
    assert "E(k|" not in report(folders[:1])


def test_the_proof_alone(bench: Path, runs: Path) -> None:
    found = page([], scaling=bench)
    assert len(found.pictures) == 1
    for words in (
        "resnet50, bf16, n = 256",
        "NVIDIA H100",
        "2026-11-20 10:00 UTC",
        "hvdtrain bench scaling",
        "450,220",
    ):
        assert words in found.text, words


def test_what_comes_from_files_is_no_markup(runs: Path) -> None:
    nasty = '<img src=x onerror=alert(1)>&"'
    folder = write(runs / "<b>r</b>&amp;", Made(windows=4, quarantined=2))
    for name in ("environment.json", "events.jsonl"):
        text = (folder / name).read_text()
        escaped = json.dumps(nasty)[1:-1]
        text = text.replace("node000", escaped).replace("broken_0", escaped).replace("AMD EPYC", escaped)
        (folder / name).write_text(text)
    found = page([folder])
    assert found.text.count(nasty) >= 2
    assert "<b>r</b>&amp;" in found.text
    assert len(found.pictures) == 4
    assert "b" not in found.seen


def test_the_twin_for_machines(runs: Path) -> None:
    folder = write(runs / "r50", Made(workers=8, windows=9, quarantined=1).with_fault("straggler", 0.05, rank=3))
    told = json.loads(report([folder], as_json=True, timeline=REAL))
    (run,) = told["runs"]
    assert told["scaling"] is None
    assert (run["run"], run["state"], run["world_size"], run["batch_size"]) == ("r50", "finished", 8, 32)
    steps = run["steps"]
    assert (steps["steps"], steps["windows"], steps["left_out"]) == (180, 9, 0)
    assert steps["efficiency"]["ratio"] + sum(steps["efficiency"]["losses"].values()) == pytest.approx(1)
    assert steps["baseline"]["workers"] == 1
    first = run["losses"][0]
    assert (first["cause"], round(first["step_seconds"], 2)) == ("straggler", 0.05)
    assert "rank 3" in first["evidence"][0]
    assert run["timeline"]["last"] == {"0": 8, "1": 8}
    assert {"reason", "seconds", "times", "share", "advice"} == run["idle"][0].keys()


def test_of_a_run_without_a_report(runs: Path) -> None:
    folder = write(runs / "begun", Made(windows=3, ends=False))
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(lines[:2]))
    assert "no report yet" in page([folder]).text
    assert json.loads(report([folder], as_json=True))["runs"][0]["steps"] is None


def test_of_an_old_run(runs: Path) -> None:
    folder = write(runs / "old", Made(windows=3))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    new = {"parts", "ranks", "slowest_rank", "efficiency", "steps", "step_seconds"}
    old = [{key: x for key, x in each.items() if key not in new} for each in events if each["event"] != "baseline"]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in old))
    found = page([folder])
    assert "this version of hvdtrain did not take steps apart" in found.text
    assert len(found.pictures) == 2


def test_the_verb_says_where_the_page_is_but_not_to_machines(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(runs / "r50", Made(windows=3))
    assert main(["report", str(folder), "--html", "a.html"]) == 0
    assert capsys.readouterr().out.endswith("\n\npage         a.html\n")
    assert main(["report", str(folder), "--html", "a.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"]


def test_what_cannot_be(runs: Path, bench: Path) -> None:
    folder = write(runs / "r50", Made(windows=3))
    with pytest.raises(ConfigError, match="expected a run directory or --scaling FILE"):
        report([])
    with pytest.raises(ConfigError, match="--timeline t: expected the one run that it is of, got 2"):
        report([folder, folder], timeline=Path("t"))
    with pytest.raises(ConfigError, match="--last 0: expected 1 report at least"):
        report([folder], last=0)
    with pytest.raises(ConfigError, match=r"--html nowhere/x\.html: No such file or directory"):
        report([folder], html=Path("nowhere/x.html"))
    with pytest.raises(ConfigError, match="expected a run of resnet50, bf16"):
        report([folder], scaling=bench)
