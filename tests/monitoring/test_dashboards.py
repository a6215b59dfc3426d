"""The Grafana dashboards: as their script writes them, as Grafana reads them, in one style."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dashboards
import panels
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from .conftest import MONITORING

TEXTS = dashboards.texts()
BOARDS = {name: json.loads(text) for name, text in TEXTS.items()}
PANELS = {
    f"{name}-{panel['title']}": panel
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
}
PROPER_NAMES = {"GPU", "GPUs", "PCIe", "Slurm"}


def properties(panel: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Every override of a property: for which series, and its value."""
    for override in panel["fieldConfig"]["overrides"]:
        for found in override["properties"]:
            if found["id"] == name:
                yield override["matcher"]["options"], found["value"]


@pytest.mark.parametrize("name", TEXTS)
def test_the_file_is_what_the_script_writes(name: str, golden: Callable[[Path, str], None]) -> None:
    golden(dashboards.FOLDER / name, TEXTS[name])


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_dashboard_survives_grafanas_schema(board: dict[str, Any]) -> None:
    assert json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)) == board


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_a_panel_tells_its_unit_and_what_to_read_off(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert re.fullmatch(r"[A-Z].{15,}\.", panel["description"])
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_a_title_is_in_sentence_case(panel: dict[str, Any]) -> None:
    first, *others = panel["title"].split()
    assert first[0].isupper()
    assert [word for word in others if word != word.lower() and word not in PROPER_NAMES] == []


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_panels_have_numbers_and_places_of_their_own(board: dict[str, Any]) -> None:
    assert [panel["id"] for panel in board["panels"]] == list(range(1, len(board["panels"]) + 1))
    squares = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(squares) == len(set(squares))
    assert max(x for x, _ in squares) < 24


def test_a_cause_has_its_one_colour_in_all_dashboards() -> None:
    seen: dict[str, set[str]] = {cause: set() for cause in panels.CAUSES}
    for panel in PANELS.values():
        for series, colour in properties(panel, "color"):
            for cause in panels.CAUSES.keys() & re.findall(r"[a-z]+", series):
                seen[cause].add(colour["fixedColor"])
    assert seen == {cause: {colour} for cause, colour in panels.CAUSES.items()}


def test_colours_differ_and_are_no_others_than_okabes_and_itos() -> None:
    okabe_ito = {"#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
    used = set(re.findall(r"#[0-9A-Fa-f]{6}\b", "".join(TEXTS.values())))
    assert used <= okabe_ito | {panels.GREY}
    assert len(set(panels.PARTS.values())) == len(panels.PARTS)


def test_a_cell_of_the_fleet_leads_to_the_dashboard_of_its_run() -> None:
    links = [link["url"] for panel in PANELS.values() for _, found in properties(panel, "links") for link in found]
    assert [link.partition("?")[0] for link in links] == [f"/d/{BOARDS['run.json']['uid']}"]
    assert "var-run=${__value.text}" in links[0]


def test_gpu_panels_show_the_gpus_of_the_runs_job_alone(tmp_path: Path) -> None:
    found = [panel for panel in PANELS.values() if "DCGM" in panel["targets"][0]["expr"]]
    assert len(found) == 4
    queries = [panel["targets"][0]["expr"].replace("$run", "r50") for panel in found]
    series = {
        'hvdtrain_run_info{run="r50", rank="0", slurm_job_id="4711"}': 1,
        'hvdtrain_run_info{run="r101", rank="0", slurm_job_id="4712"}': 1,
        'hvdtrain_run_info{run="at home", rank="0", slurm_job_id=""}': 1,
    }
    for name in {query.split()[0] for query in queries}:
        series |= {
            f'{name}{{gpu="0", hpc_job="4711"}}': 3,
            f'{name}{{gpu="1", hpc_job="4712"}}': 5,
            f'{name}{{gpu="2"}}': 7,
        }
    ours = [{"labels": '{gpu="0", hpc_job="4711"}', "value": 3}]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": str(value)} for name, value in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "0m", "exp_samples": ours} for query in queries],
    }
    file = tmp_path / "gpu.test.yml"
    file.write_text(yaml.safe_dump({"tests": [case]}))
    ran = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_provisioning_finds_the_dashboards_and_a_prometheus() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "hvdtrain.yml").read_text())["providers"]
    assert source["type"] == "prometheus"
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]).name == dashboards.FOLDER.name
