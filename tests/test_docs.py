"""The README tells the truth about the tree."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


PAGES = [
    *ROOT.glob("*.md"),
    *(
        path
        for folder in ("benchmarks", "docker", "docs", "hvdtrain", "slurm")
        for path in (ROOT / folder).rglob("*.md")
    ),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_the_tree_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    places = [((page.parent / link).resolve() if link else page, anchor) for link, anchor in links]
    assert [str(file) for file, _ in places if not file.exists()] == []
    assert [f"{file}#{anchor}" for file, anchor in places if anchor and anchor not in anchors(file.read_text())] == []


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    plain = [re.sub(r"[^\w -]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def test_anchors_are_those_of_headings() -> None:
    assert anchors("# A: `make x --y`, [so](it)\n```\n# no\n```\n## B c\n") == {"a-make-x---y-so", "b-c"}
    assert len(re.findall(r"\]\((?!http)", README)) > 15


def test_follow_a_batch_has_its_ten_steps() -> None:
    steps = re.findall(r"^\| (\d+) \| \[([a-z/]+)\]\(hvdtrain/([a-z/]+)\.py\)", README, flags=re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == list(range(1, 11))
    assert all(name == file for _, name, file in steps)


def test_the_tree_names_every_module() -> None:
    tree = README.partition("## The tree")[2].partition("\n## ")[0]
    modules = [path for path in (ROOT / "hvdtrain").rglob("*.py") if path.name != "__init__.py"]
    assert [str(path) for path in modules if not re.search(rf"\b{re.escape(path.name)}", tree)] == []


def test_options_in_commands_exist() -> None:
    from hvdtrain.config.schema import Config

    options = set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)+)", README))
    assert options
    for option in options:
        model = Config
        *sections, field = option.split(".")
        for section in sections:
            model = type(getattr(model(), section))
        assert field in model.model_fields, option


def test_every_dependency_is_listed_with_its_reason_and_licence() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared: dict[str, set[str]] = {}
    for by, lines in [("always", setup["options"]["install_requires"]), *setup["options.extras_require"].items()]:
        for package in re.findall(r"^[\w.-]+", lines.strip(), flags=re.MULTILINE):
            declared.setdefault(package, set()).add(by)
    chapter = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    rows = [re.split(r" *\| *", line.strip("| ")) for line in chapter.splitlines() if line.startswith("| ")][1:]
    assert {package: set(by.split(", ")) for package, by, _, _ in rows} == declared
    assert len(rows) == len(declared)
    assert all(reason and licence for _, _, reason, licence in rows)
