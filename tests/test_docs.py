"""The README tells the truth about the tree."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_link_into_the_tree_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


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
