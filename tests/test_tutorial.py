"""Commands that the documentation prints exist, and those of the tutorial run. `make demo` walks the same road."""

import json
import re
import shutil
from pathlib import Path

import gemmi
import pytest
import typer

from stemtomo_dl.cli import app

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(r"^    stemtomo (.+)$", (ROOT / "docs/tutorial.md").read_text(encoding="utf-8"), re.M)


def test_the_tutorial_walks_the_whole_road():
    verbs = {c.split()[0] for c in COMMANDS}
    assert {"simulate", "run", "index", "integrate", "solve", "report", "export", "evaluate"} <= verbs


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_tutorial_parses(line):
    verb, *words = line.split()
    command = typer.main.get_command(app).commands[verb]
    command.make_context(verb, words)  # an unknown option, or a missing argument, raises


def test_the_commands_of_the_tutorial_run(brookites, command, tmp_path):
    """All but the first, in order, with a small experiment and its run in place of those that take minutes."""
    place = tmp_path / "tutorial"
    shutil.copytree(brookites / "e", place / "experiment")
    shutil.copytree(brookites / "run", place / "run")
    first, *others = COMMANDS
    assert first.split()[0] == "simulate"
    said = {line: command(*line.split(), cwd=tmp_path).stdout for line in others}
    assert "solved: O2Ti" in next(told for line, told in said.items() if line.startswith("phase"))
    stats = json.loads((place / "phase/stats.json").read_text())
    assert gemmi.SpaceGroup(stats["space_group"]).number == 61  # in the setting that the cell was found in
    made = ("run/phases/brookite/solution.cif", "one/crystal.json", "phase/solution.cif", "run/report.html")
    assert not [p for p in made if not (place / p).exists()]


def test_pictures_and_pages_that_the_readme_names_exist():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert not [p for p in links if not p.startswith("http") and not (ROOT / p).exists()]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_what_a_page_links_to_exists(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert not [p for p in links if not p.startswith("http") and not (page.parent / p).exists()]


def test_every_stage_has_its_formulas_on_a_page():
    from stemtomo_dl.pipeline import STAGES

    table = (ROOT / "docs/theory/README.md").read_text(encoding="utf-8")
    assert not [stage for stage in STAGES if stage != "report" and f"`{stage}`" not in table]
