"""Where every cell stands, from its files alone."""

import pytest

from knowhue.errors import RunError
from knowhue.plan import make_plan
from knowhue.runs import run_folder, write_log
from knowhue.status import read_cells, read_plan
from knowhue.storage import write_json
from knowhue.study import freeze


@pytest.fixture
def plan(tiny):
    return make_plan(tiny(), ["colour", "multi"], [0, 3])


def begin(root, plan, arm, seed, state, epochs):
    folder = run_folder(root, arm, plan.run_config(arm, seed))
    write_json(folder / "status.json", {"state": state, "seconds": {"evaluate": 1.5}})
    write_log(folder, [{"phase": "finetune", "epoch": 3 + n, "seconds": 2.0} for n in range(epochs)])


def test_cells_say_how_far_they_are(plan, tmp_path):
    freeze(plan, tmp_path, {}, {"images": "0a1b2c3d", "encoder_weights": {}})
    begin(tmp_path, plan, "colour", 0, "finished", 2)
    begin(tmp_path, plan, "multi", 3, "running", 1)
    cells = {(cell.arm, cell.seed): cell for cell in read_cells(tmp_path, read_plan(tmp_path))}
    assert list(cells) == [("colour", 0), ("multi", 0), ("colour", 3), ("multi", 3)]
    assert cells["colour", 0][2:] == ("finished", 4, 4, 5.5)
    assert cells["multi", 3][2:5] == ("running", 3, 4)
    assert cells["multi", 0][2:] == ("missing", 0, 4, 0)


def test_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"should be the folder of a study.* Found no study\.json there\.$"):
        read_plan(tmp_path)
