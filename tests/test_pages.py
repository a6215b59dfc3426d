"""Every command in docs/ runs, with the substitutes of pages.py, or says why it cannot here; as printed, its options
exist and its workers can share the minibatch. `pytest -rP` shows what each has printed.

Pages that need several hosts or a Slurm are done in tests/cluster/test_pages.py.
"""

import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtrain.config.schema import Config
from hvdtrain.train.recipe import micro_batches

from .data import ilsvrc
from .pages import (
    DOCS,
    ROOT,
    TRIED,
    Command,
    Place,
    Tried,
    Tries,
    commands,
    dry,
    parsers,
    summary,
    trainings,
    unknown,
)

pytestmark = pytest.mark.multiproc

PAGES = sorted(DOCS.glob("*.md"))
ON_HOSTS = {"slurm.md", "hosts.md", "elastic.md"}  # in tests/cluster/test_pages.py
HERE = [page.name for page in PAGES if page.name not in ON_HOSTS and "```console" in page.read_text()]
ALSO = [ROOT / "CONTRIBUTING.md"]
READMES = [ROOT / "README.md", ROOT / "slurm" / "README.md"]
WNIDS = {number: f"n{number:08}" for number in range(1, 11)}  # of the digits 0 to 9


@pytest.fixture(scope="session")
def archives(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as ILSVRC2012's three archives."""
    folder = tmp_path_factory.mktemp("archives")
    classes = sorted(path.name for path in (digits / "train").iterdir())
    inner = {}
    for wnid, name in zip(WNIDS.values(), classes, strict=True):
        files = sorted((digits / "train" / name).iterdir())
        inner[f"{wnid}.tar"] = ilsvrc.tar((f"{wnid}_{n}.JPEG", file.read_bytes()) for n, file in enumerate(files))
    val = [(n, file) for n, name in enumerate(classes, 1) for file in sorted((digits / "val" / name).iterdir())]
    pictures = [(f"ILSVRC2012_val_{n:08}.JPEG", file.read_bytes()) for n, (_, file) in enumerate(val, 1)]
    truth = "".join(f"{n}\n" for n, _ in val)
    meta = ilsvrc.meta([(n, wnid, 0) for n, wnid in WNIDS.items()])
    (folder / "ILSVRC2012_img_train.tar").write_bytes(ilsvrc.tar(inner.items()))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(ilsvrc.tar(pictures))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(ilsvrc.devkit(truth, meta))
    return folder


@pytest.fixture
def place(tmp_path: Path, archives: Path, digits: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """With the archives, and with the images too where the page does not make them itself."""
    (tmp_path / "archives").symlink_to(archives)
    if request.node.callspec.params["page"] != "imagenet.md":
        (tmp_path / "imagenet").symlink_to(digits)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = Place(tmp_path, also={"9470": str(port)}, environment={"HOME": str(tmp_path)})
    yield place
    place.end()


@pytest.mark.parametrize("page", HERE)
def test_every_command_of_a_page_runs(page: str, place: Place, pytestconfig: pytest.Config) -> None:
    tries = pytestconfig.stash.setdefault(TRIED, [])
    for command in commands((DOCS / page).read_text(), page):
        place.do(command, tries)


def test_every_page_has_commands_and_is_done_somewhere() -> None:
    """A page alone in a folder of pages nobody would miss."""
    assert {page.name for page in PAGES} >= {*ON_HOSTS, *HERE}
    assert len(HERE) + len(ON_HOSTS) >= 7
    for page in PAGES:
        assert f"docs/{page.name}" in (ROOT / "README.md").read_text(), f"the README has no link to {page.name}"


@pytest.mark.parametrize("page", [*PAGES, *ALSO], ids=lambda page: page.name)
def test_verbs_and_options_in_commands_exist(page: Path) -> None:
    for command in commands(page.read_text(), page.name):
        assert unknown(command) == [], command.where
        if command.dry:
            assert unknown(replace(command, text=dry(command))) == [], command.where


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=lambda page: f"{page.parent.name}/{page.name}")
def test_the_minibatch_of_every_run_can_be_shared_by_its_workers_as_printed(page: Path) -> None:
    """What runs here in its place has two workers, and no preset of ImageNet's."""
    for command in commands(page.read_text(), page.name):
        for config, workers in trainings(command):
            micro_batches(config, workers)


def test_runs_and_workers_are_read_from_commands_as_printed() -> None:
    def read(text: str) -> list[tuple[int | None, int]]:
        return [(config.train.global_batch_size, k) for config, k in trainings(Command("page.md", 1, text))]

    assert read("hvdtrain launch mpirun -np 16 -H a:8,b:8 hvdtrain train --config goyal_r50_256 --seed 2") == [
        (256, 16)
    ]
    assert read("timeout 9 hvdtrain train … && hvdtrain train --config goyal_r50_8k | cat") == [(None, 1), (8192, 1)]
    assert read("hvdtrain submit --config goyal_r50_256 --job.nodes 2 --job.gpus_per_node 8") == [(256, 16)]
    assert read("hvdtrain submit --scaling 1,4 --config goyal_r50_256 --job.gpus_per_node 8") == [(None, 8), (None, 32)]
    assert read("hvdtrain submit --prepare /archives; mpirun -np 2 hvdtrain eval runs/r50 # train") == []
    runs = [run for page in [*PAGES, *READMES] for one in commands(page.read_text(), "") for run in trainings(one)]
    assert len(runs) >= 30


@pytest.mark.parametrize("page", [*PAGES, *ALSO, *DOCS.glob("*/*.md")], ids=lambda page: page.name)
def test_settings_and_links_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    settings = set(Config().settings())
    sections = {name.split(".")[0] for name in settings if "." in name}
    for section, field in re.findall(r"(?<![\w./])(?:--)?([a-z]+)\.([a-z_]+)\b(?![(/])", _inline_code(text)):
        if section in sections and field not in ("py", "md", "yaml"):
            assert f"{section}.{field}" in settings, f"{page.name}: {section}.{field}"
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def _inline_code(text: str) -> str:
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join(re.findall(r"`([^`]+)`", without_blocks))


def test_what_newcomers_options_became_exists() -> None:
    """In the tables of coming-from.md the first column has theirs, the others ours."""
    ours = {option for parser in parsers().values() for option in parser._option_string_actions}
    rows = re.findall(r"^\| `.*\|$", (DOCS / "coming-from.md").read_text(), flags=re.MULTILINE)
    assert len(rows) > 90
    for row in rows:
        _, _, *columns, _ = re.split(r"(?<!\\)\|", row)
        options = re.findall(r"`(--[\w.-]+)", " ".join(columns))
        assert [option for option in options if option not in ours] == [], row
        assert "".join(columns).strip(), f"{row}: neither an option nor a reason"


@pytest.mark.parametrize("verb", parsers())
def test_the_help_of_every_verb_has_an_example(verb: str) -> None:
    described = f"{parsers()[verb].description}"
    examples = [line.strip() for line in described.splitlines() if re.match(rf"    .*\b{verb}\b", line)]
    assert examples, f"{verb} --help has no line of its own use"
    joined = described.replace("\\\n", " ")
    for line in joined.splitlines():
        if re.match(r"    .*\bhvdtrain ", line) and "VERB" not in line:
            assert unknown(Command(verb, 0, line.strip().replace(" ...", "").replace("'", ""))) == []


BLOCK = "```console\n$ hvdtrain train --seed 1 \\\n    --epochs 2\nsaid\n$ false\n```\n"


def test_commands_are_read_with_their_marks() -> None:
    mark = "<!-- not run: no GPU; dry: config -->\n<!-- exit code: 75 -->\n"
    first, last = commands(f"text\n\n{mark}{BLOCK}", "page.md")
    assert first == Command("page.md", 6, "hvdtrain train --seed 1 --epochs 2", 0, "no GPU", "config")
    assert last == Command("page.md", 9, "false", 75, "no GPU", "config")
    assert dry(first) == "hvdtrain config --seed 1 --epochs 2"
    assert dry(replace(first, dry="--dry-run")).endswith("--epochs 2 --dry-run")
    assert dry(replace(first, dry="true")) == "true"
    assert [one.not_run for one in commands(BLOCK, "page.md")] == ["", ""]


@pytest.mark.parametrize("mark", ["<!-- not run: -->", "<!-- not run: ; dry: true -->", "<!-- not run:  -->"])
def test_a_mark_without_a_reason_is_refused(mark: str) -> None:
    with pytest.raises(ValueError, match="expected a reason"):
        commands(f"{mark}\n{BLOCK}", "page.md")


@pytest.mark.parametrize(
    "mark", ["<!-- not run: no GPU -->\n\n", "<!-- not run no GPU -->\n", "<!-- exit code 7 -->\n"]
)
def test_a_mark_that_is_not_in_the_line_before_its_block_is_refused(mark: str) -> None:
    with pytest.raises(ValueError, match=r"in the line before a console block"):
        commands(f"{mark}{BLOCK}", "page.md")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("hvdtrain train --seed 1 --data.dir=x", []),
        ("hvdtrain train --sed 1 --dta.dir=x", ["hvdtrain train --sed", "hvdtrain train --dta.dir"]),
        ("mpirun -np 2 --bind-to none hvdtrain train --seed 1 | grep --count x", []),
        ("hvdtrain launch --grace 9 mpirun --map-by x hvdtrain train --nope", ["hvdtrain train --nope"]),
        ("hvdtrain data pak x", ["hvdtrain data pak"]),
        ("hvdtrain data pack x y --max-side 4 && hvdtrain frobnicate", ["hvdtrain frobnicate"]),
    ],
)
def test_options_that_do_not_exist_are_seen(text: str, wrong: list[str]) -> None:
    assert unknown(Command("page.md", 1, text)) == wrong


def test_a_command_that_fails_fails_the_page(tmp_path: Path) -> None:
    place = Place(tmp_path, also={}, environment={})
    tries: Tries = []
    place.do(Command("page.md", 1, "exit 3", exit_code=3), tries)
    place.do(Command("page.md", 2, "exit 3", not_run="no GPU"), tries)
    with pytest.raises(AssertionError, match=r"docs/page.md:3: echo no; exit 3\nended with 3, not 0"):
        place.do(Command("page.md", 3, "echo no; exit 3"), tries)
    with pytest.raises(AssertionError, match="ended with 1, not 0"):
        place.do(Command("page.md", 4, "exit 0", not_run="no GPU", dry="false"), tries)
    assert summary(tries) == "2 commands of docs/ ran, 2 could not (1 of them tried dry): 2 no GPU"


def test_what_a_page_prints_becomes_what_is_run(tmp_path: Path) -> None:
    place = Place(tmp_path, also={"9470": "7"}, environment={})
    assert (
        place.as_run("mpirun -np 8 x --data.dir /imagenet-tar") == f"mpirun -np 2 x --data.dir {tmp_path}/imagenet-tar"
    )
    assert place.as_run("-np 80 ./imagenet http://h:9470/metrics") == "-np 80 ./imagenet http://h:7/metrics"


def test_the_summary_without_reasons() -> None:
    assert summary([Tried(Command("page.md", 1, "true"), dry=False)]).startswith("1 commands of docs/ ran, 0 could not")
