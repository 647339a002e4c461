"""Rules for the whole package: public names, docstrings, imports and printing."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import knowhue

ROOT = Path(knowhue.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
SCRIPTS = sorted(
    path for folder in ("benchmarks", "studies") for path in (ROOT.parents[1] / folder).rglob("*.py")
)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """Free the trees afterwards, because garbage collection would visit their million nodes in all later tests."""
    yield
    parsed.cache_clear()


def test_public_names_are_sorted_and_there():
    assert knowhue.__all__ == sorted(knowhue.__all__)
    for name in knowhue.__all__:
        assert getattr(knowhue, name).__doc__


def test_completion_finds_the_public_names_before_their_first_use():
    script = "import knowhue, sys; print(*dir(knowhue)); assert 'knowhue.plan' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert set(knowhue.__all__) <= set(found.split())


def test_a_path_may_be_text_wherever_somebody_calls():
    verbs = [getattr(knowhue, name) for name in knowhue.__all__]
    methods = [getattr(knowhue.Colorizer, name) for name in ("load", "colorize", "classify", "reference")]
    for verb in [*filter(inspect.isfunction, verbs), *methods]:
        for name, parameter in inspect.signature(verb).parameters.items():
            taken = str(parameter.annotation)
            assert ("Path" in taken) <= ("str" in taken), f"{verb.__name__}({name}: {taken})"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_another_folder_is_named_by_an_option_in_commands_alone(path):
    """A caller from Python has no command-line options."""
    told = [node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant)]
    assert "apps" in path.parts or not any("with --out" in each for each in told if isinstance(each, str))


def test_unknown_name_lists_the_public_ones():
    with pytest.raises(
        AttributeError, match=r"no attribute 'tran'; public names: ColorizeOptions, Colorizer, .*train"
    ):
        knowhue.tran  # noqa: B018


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_module_says_why_it_exists(path):
    docstring = ast.get_docstring(parsed(path))
    assert docstring
    assert docstring.splitlines()[0].rstrip().endswith((".", ";", "?"))


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_every_public_function_or_class_of_more_than_four_lines_has_a_docstring(path):
    tree = parsed(path)
    public = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and _lines(node) > 4
        and node in _public_bodies(tree)
    ]
    assert public == []


def _public_bodies(tree: ast.Module) -> list[ast.stmt]:
    """Functions and classes of the module and of its public classes, without nested functions."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return [*tree.body, *(node for each in classes for node in each.body)]


def _lines(node: ast.FunctionDef | ast.ClassDef) -> int:
    """Number of lines of the body, without the signature."""
    return (node.end_lineno or node.lineno) - node.body[0].lineno + 1


def test_no_public_name_stands_in_two_modules():
    """Every public name has one definition, so that a search finds it."""
    places: dict[str, set[str]] = {}
    for path in MODULES:
        for node in parsed(path).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            inner = [each for target in targets if target is not None for each in ast.walk(target)]
            names = [each.id for each in inner if isinstance(each, ast.Name)]
            names += (
                [node.name] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else []
            )
            for name in names:
                if not name.startswith("_"):
                    places.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_module_is_a_drawer_for_everything():
    assert {path.stem for path in MODULES} & {"utils", "util", "helpers", "common", "misc"} == set()


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.stem != "__main__"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_every_module_imports_by_itself(path):
    relative = path.relative_to(ROOT.parent).with_suffix("")
    importlib.import_module(".".join(relative.parts).removesuffix(".__init__"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_scripts_take_from_the_package_is_there(path):
    """Most scripts are only run by hand, so a renamed import would be noticed too late."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "knowhue":
            module = importlib.import_module(str(node.module))
            for name in (each.name for each in node.names):
                assert hasattr(module, name) or find_spec(f"{node.module}.{name}"), f"{node.module}: {name}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if "apps" not in p.parts], ids=lambda p: str(p.relative_to(ROOT))
)
def test_only_apps_print_or_exit(path):
    calls = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    names = {ast.unparse(function) for function in calls}
    # a worker ends silently with its parent; the entry point exits before an app is loaded
    allowed = {"executor.py": {"os._exit"}, "__main__.py": {"print", "sys.exit"}}
    found = names & {"print", "sys.exit", "exit", "quit", "os._exit"}
    assert found == allowed.get(path.name, set())


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_paths_are_resolved_by_one_function(path):
    """`Path.resolve` raises a RuntimeError for a link to itself, on Python 3.11 and 3.12."""
    assert ".resolve()" not in path.read_text(encoding="utf-8")
