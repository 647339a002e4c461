"""Cells side by side: the same files as one after another, and nothing computed twice."""

import pytest
from safetensors.torch import load_file

from knowhue.errors import KnowhueError
from knowhue.plan import make_plan
from knowhue.runs import read_json
from knowhue.status import read_cells, read_plan
from knowhue.study import run_study

SHORT = {"training__heads__epochs": 1, "training__finetune__epochs": 1, "encoder__weights": "none"}
QUICK = SHORT | {"evaluation__networks": (), "evaluation__perceptual": ()}
ARMS = ["colour", "class", "multi", "placebo-labels"]


def weights(root):
    return {
        str(path.parent.relative_to(root)): load_file(path)
        for path in sorted(root.rglob("model.safetensors"))
    }


@pytest.fixture(scope="module")
def side_by_side(tiny, tmp_path_factory):
    """A study by two workers, and what it told."""
    root, told = tmp_path_factory.mktemp("side"), []
    run_study(make_plan(tiny(**QUICK), ARMS, [0, 1]), root, workers=2, report=told.append)
    return root, told


def test_two_workers_make_what_one_makes(side_by_side, tiny, tmp_path):
    root, _ = side_by_side
    run_study(make_plan(tiny(**QUICK), ARMS, [0, 1]), tmp_path)
    one, two = weights(tmp_path), weights(root)
    assert one.keys() == two.keys()
    assert all((one[run][name] == two[run][name]).all() for run in one for name in one[run])


def test_heads_are_shared_by_the_arms(side_by_side):
    root, _ = side_by_side
    assert len(list((root / "heads" / "colour").iterdir())) == 2  # one a seed
    assert len(list((root / "heads" / "class").iterdir())) == 4  # true and shuffled labels


def test_cells_are_told_until_all_have_ended(side_by_side):
    root, told = side_by_side
    cells = [event["cells"] for event in told if event["stage"] == "cells"]
    assert [cell.state for cell in cells[-1]] == ["finished"] * 8
    assert read_cells(root, read_plan(root)) == cells[-1]
    assert all(cell.epochs == cell.of == 2 for cell in cells[-1])


def test_every_block_tried_the_gate(side_by_side):
    root, _ = side_by_side
    assert [read_json(root / "gate" / f"seed-{seed}.json")["differ"] for seed in (0, 1)] == [[], []]


def test_failing_cell_ends_the_study_and_keeps_the_rest(side_by_side, tiny, tmp_path):
    """A folder where a run should be is what a full or foreign disk looks like to it."""
    plan = make_plan(tiny(**QUICK), ["colour", "class"], [0])
    (tmp_path / "colour").write_text("not a folder")
    with pytest.raises(KnowhueError, match="Cannot write"):
        run_study(plan, tmp_path, workers=2)
    (tmp_path / "colour").unlink()
    run_study(plan, tmp_path, workers=2)
    assert {cell.state for cell in read_cells(tmp_path, plan)} == {"finished"}
