"""The wheel is complete: built from the tracked files and installed elsewhere, it colours a photo."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
GIRLS = ROOT / "src/knowhue/serving/examples/girls.jpg"


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("the wheel is built from the files that git tracks; there is no repository here")
    folder = tmp_path_factory.mktemp("wheel")
    # a ZIP, because the first releases of Python 3.11 cannot unpack a tar safely
    run("git", "-c", f"safe.directory={ROOT}", "archive", "-o", str(folder / "tree.zip"), "HEAD", cwd=ROOT)
    with zipfile.ZipFile(folder / "tree.zip") as tree:
        tree.extractall(folder / "tree")
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    run(sys.executable, "-c", build, str(folder), cwd=folder / "tree")  # as pip does, without its two copies
    return next(folder.glob("*.whl"))


def test_the_wheel_says_that_it_is_typed_and_carries_its_licence(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "knowhue/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_tracked_file_of_the_package_is_in_the_wheel(wheel):
    tracked = run(
        "git", "-c", f"safe.directory={ROOT}", "ls-tree", "-r", "--name-only", "HEAD", "src", cwd=ROOT
    )
    wanted = {name.removeprefix("src/") for name in tracked.splitlines()}
    assert wanted - set(zipfile.ZipFile(wheel).namelist()) == set()


def test_the_installed_wheel_colours_a_photo_away_from_its_sources(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    Image.open(GIRLS).convert("L").save(tmp_path / "old.png")
    where = run(
        sys.executable, "-c", "import knowhue; print(knowhue.__file__)", cwd=tmp_path, PYTHONPATH=str(site)
    )
    assert Path(where.strip()).is_relative_to(site)
    run(
        sys.executable,
        "-m",
        "knowhue",
        "colorize",
        "old.png",
        "-o",
        "new.png",
        cwd=tmp_path,
        PYTHONPATH=str(site),
    )
    assert Image.open(tmp_path / "new.png").convert("HSV").getchannel("S").getextrema()[1] > 60
