"""Any file of a study can be damaged: it is computed again, or one line names the file and the remedy."""

import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowhue.errors import KnowhueError
from knowhue.inference.colorizer import Colorizer
from knowhue.plan import make_plan, read_cells, read_plan
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.storage import read_csv, read_json, write_json
from knowhue.study import run_study
from knowhue.training import loop
from knowhue.training.deploy import deploy

QUICK = {
    "training__heads": {"epochs": 1},
    "training__finetune": {"epochs": 2},
    "encoder__weights": "none",
    "evaluation": {"networks": (), "perceptual": (), "gradient_batches": 1, "diagnose_every_steps": 25},
}


def flip(path: Path) -> None:
    """Flip one bit in the middle, as a faulty disk or cable would."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": flip,
    "other": lambda path: path.write_text("[1]\n"),
}
BESIDE_RUNS = [
    "study.json",
    "baselines.json",
    "metrics.json",
    "results.json",
    "report.html",
    "gate/seed-0.json",
    *(f"images/{name}" for name in ("prepared.json", "manifest.csv", "images.npy", "samples.npz")),
    "features/baselines-*.json",
    *(f"features/*/tap-4.{suffix}" for suffix in ("npy", "json")),
]
OF_A_RUN = [
    *("config.json", "environment.json", "log.jsonl", "scores.json", "per_image.csv", "samples.npz"),
    *("extremes.npz", "model.safetensors", "status.json"),
]
FILES = [
    *BESIDE_RUNS,
    *(f"multi/*/{name}" for name in OF_A_RUN),
    *(f"heads/colour/*/{name}" for name in OF_A_RUN),
]
INTERRUPTED = [
    *(f"multi/*/{name}" for name in ("config.json", "environment.json", "log.jsonl", "status.json")),
    "multi/*/checkpoints/state.pt",
]


@pytest.fixture(scope="module")
def plan(tiny):
    return make_plan(tiny(**QUICK), ["colour", "class", "multi"], [0])


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    root = tmp_path_factory.mktemp("finished") / "study"
    run_study(plan, root)
    return root


@pytest.fixture(scope="module")
def interrupted(plan, finished, tmp_path_factory):
    """A study killed after the first epoch of the last arm's fine-tuning."""
    root = tmp_path_factory.mktemp("interrupted") / "study"
    shutil.copytree(finished, root)
    shutil.rmtree(root / "multi")

    class Killed(BaseException):
        pass

    save = loop.checkpoint.save_checkpoint

    def kill(*arguments):
        save(*arguments)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.checkpoint, "save_checkpoint", kill)
        with pytest.raises(Killed):
            run_study(plan, root)
    assert list(root.glob("multi/*/checkpoints/state.pt"))
    return root


def results(root: Path) -> Any:
    """Every score, without times and dates."""
    found = {}
    for scores in sorted(root.glob("*/seed-0-*/scores.json")):
        found[scores.parent.parent.name] = read_json(scores), read_csv(scores.with_name("per_image.csv"))
    found["log"] = [
        {key: value for key, value in entry.items() if "second" not in key and key != "diagnostics"}
        for run in read_study(root).runs["multi"].values()
        for entry in run.log
    ]
    return found


def damaged(root: Path, to: Path, pattern: str, damage: str) -> Path:
    # linked, because all files are replaced, not changed, except locks
    copy = shutil.copytree(root, to / "study", copy_function=os.link, ignore=shutil.ignore_patterns("*.lock"))
    (path,) = copy.glob(pattern)
    shutil.copy(path, to / "damaged")
    (to / "damaged").replace(path)
    DAMAGES[damage](path)
    return copy


def assert_one_line(error: KnowhueError, root: Path, pattern: str) -> None:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 800
    named = Path(pattern).name.partition("*")[0]
    assert named in text or "checkpoints" in text or "images" in text, text


def assert_study_heals_or_says(plan: Any, root: Path, pattern: str, whole: Any) -> None:
    try:
        run_study(plan, root)
    except KnowhueError as error:
        assert_one_line(error, root, pattern)
    else:
        assert results(root) == whole
        assert all(math.isfinite(cell.seconds) for cell in read_cells(root, read_plan(root)))


HEALED = [
    ("gate/seed-0.json", "cut"),
    ("features/baselines-*.json", "flipped"),
    ("images/samples.npz", "empty"),
    ("multi/*/scores.json", "gone"),
    ("multi/*/per_image.csv", "flipped"),
    ("multi/*/samples.npz", "cut"),
    ("multi/*/log.jsonl", "flipped"),
    ("multi/*/model.safetensors", "flipped"),
    ("multi/*/environment.json", "other"),
    ("multi/*/status.json", "cut"),
]


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(("pattern", "damage"), HEALED)
def test_a_study_makes_anew_what_is_damaged(plan, finished, tmp_path, pattern, damage):
    root = damaged(finished, tmp_path, pattern, damage)
    run_study(plan, root)
    assert results(root) == results(finished)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", FILES)
def test_a_finished_study_heals_or_says_so(plan, finished, tmp_path, pattern, damage):
    assert_study_heals_or_says(plan, damaged(finished, tmp_path, pattern, damage), pattern, results(finished))


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", INTERRUPTED)
def test_an_interrupted_study_heals_or_says_so(plan, interrupted, finished, tmp_path, pattern, damage):
    assert_study_heals_or_says(
        plan, damaged(interrupted, tmp_path, pattern, damage), pattern, results(finished)
    )


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", FILES)
def test_reading_says_so(finished, tmp_path, pattern, damage):
    root = damaged(finished, tmp_path, pattern, damage)
    for read in (lambda: read_cells(root, read_plan(root)), lambda: read_study(root)):
        try:
            read()
        except KnowhueError as error:
            assert_one_line(error, root, pattern)


@pytest.mark.parametrize(
    ("pattern", "lost"),
    [
        ("multi/*/samples.npz", set()),  # the other arms' colourings are still drawn
        ("multi/*/extremes.npz", set()),
        ("images/samples.npz", {"samples"}),
    ],
)
def test_a_damaged_diagram_costs_that_diagram_alone(finished, tmp_path, pattern, lost):
    page = write_report(damaged(finished, tmp_path, pattern, "cut")).read_text()
    assert "is damaged: figures that need it are left out" in page
    assert drawn(page) == drawn((finished / "report.html").read_text()) - lost


def drawn(page: str) -> set[str]:
    """Names of the figures of a page."""
    found = set(re.findall(r'<figure id="figure-([\w-]+)"', page))
    assert len(found) > 5
    return found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*OF_A_RUN, "colorizer.safetensors"])
def test_a_model_of_a_damaged_run_is_not_put_to_work(deployed, tmp_path, name, damage):
    """A deployed run needs only its model file."""
    root = damaged(deployed, tmp_path, f"multi/*/{name}", damage)
    if name != "colorizer.safetensors":
        next(root.glob("multi/*/colorizer.safetensors")).unlink()
    try:
        deploy(root)
        Colorizer.load(root)
    except KnowhueError as error:
        assert_one_line(error, root, name)
    else:
        assert damage == "gone"  # then it was made again; or the run has not ended, and another one is taken
        assert name in ("colorizer.safetensors", "status.json")


@pytest.fixture(scope="module")
def deployed(finished, tmp_path_factory):
    root = shutil.copytree(finished, tmp_path_factory.mktemp("deployed") / "study")
    deploy(root)
    return root


def test_a_diverged_run_is_not_put_to_work(finished, tmp_path):
    root = shutil.copytree(finished, tmp_path / "study")
    for status in root.glob("*/seed-0-*/status.json"):
        write_json(status, {**read_json(status), "state": "diverged"})
    run = next(root.glob("multi/*"))
    for name in (root, run):
        with pytest.raises(KnowhueError, match="diverged"):
            deploy(name)
        with pytest.raises(KnowhueError, match="diverged"):
            Colorizer.load(name)
    deploy(finished)
    shutil.copy(next(finished.glob("multi/*/colorizer.safetensors")), run)
    with pytest.raises(KnowhueError, match="diverged"):  # a file that was made before
        Colorizer.load(run)
