"""Every table, class, function and file that docs/architecture.md names exists."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import knowhue

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TABLE = TEXT.partition("## Where to change things")[2].partition("Reading order")[0]
MODULES = [each.name for each in pkgutil.walk_packages(knowhue.__path__, "knowhue.") if not each.ispkg]
NAMED = sorted({
    name
    for row in re.findall(r"^\| an? .*\|$", TABLE, re.MULTILINE)
    for name in re.findall(r"`((?:\w+\.)+\w+)`", row.split("|")[2])
    if not name.endswith(".py")
})  # fmt: skip
FILES = sorted(set(re.findall(r"`((?:tests|benchmarks|src)/[\w/]+\.py)`", TEXT)))


TREE = TEXT.partition("```\nsrc/knowhue/")[2].partition("```")[0]


@pytest.mark.parametrize("module", MODULES)
def test_the_house_has_a_word_for_every_file(module):
    name = module.rpartition(".")[2]
    assert name == "__main__" or re.search(rf"\b{name}\b", TREE)


def test_the_house_names_no_file_that_is_gone():
    there = {module.rpartition(".")[2] for module in MODULES}
    assert set(re.findall(r"(\w+)\.py", TREE)) <= there


def has(found: object, names: list[str]) -> bool:
    """Whether the attribute exists, or the setting of a section."""
    for name in names:
        settings = getattr(found, "model_fields", {})
        if name not in settings and not hasattr(found, name):
            return False
        found = getattr(found, name, None)
    return True


@pytest.mark.parametrize("name", NAMED)
def test_what_the_table_says_to_edit_is_there(name):
    parts = name.split(".")
    homes = [
        (module, parts[size:])
        for size in range(1, len(parts))
        for module in MODULES
        if module.endswith("." + ".".join(parts[:size]))
    ]
    assert any(has(importlib.import_module(module), rest) for module, rest in homes)


def test_the_table_has_a_row_for_what_newcomers_add():
    rows = re.findall(r"^\| (an? [^|]+) \|", TABLE, re.MULTILINE)
    for wanted in (
        "loss",
        "metric",
        "method",
        "image format",
        "encoder",
        "weighting",
        "command",
        "figure",
    ):
        assert any(wanted in row for row in rows), wanted
    assert len(NAMED) > 20


@pytest.mark.parametrize("path", FILES)
def test_files_that_it_names_are_there(path):
    assert (ROOT / path).is_file()
