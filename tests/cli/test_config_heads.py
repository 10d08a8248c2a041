"""Every recipe says in its head where it comes from, what to expect and what was measured."""

import re
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
FIELDS = ["Paper", "Reproduces", "Command", "Hardware", "Time", "Expected", "Measured", "Departures"]
RECIPES = sorted((CONFIGS / "recipes").rglob("*.yaml"))


def head(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    end = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def fields(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in head(path)[1:]:
        match = re.match(r"([A-Z][a-z]+):\s+(.*)", line)
        if match:
            found[match[1]] = match[2]
        elif line and found:
            found[list(found)[-1]] += " " + line
    return found


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_head_is_complete(path: Path) -> None:
    said = fields(path)
    assert list(said) == FIELDS
    assert all(said.values())
    assert re.search(r"https?://|arXiv \d{4}\.\d{5}", said["Paper"]) or said["Paper"] == "none"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_command_names_the_recipe_itself(path: Path) -> None:
    assert f"configs/{path.relative_to(CONFIGS)}" in fields(path)["Command"]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_first_line_says_what_it_is(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert re.match(r"# \S.{15,}\.$", first), first
