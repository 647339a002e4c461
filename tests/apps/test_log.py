"""`knowhue log`: its output and its errors."""

import sys

import pytest
from logged_study import write_logged_study


def test_a_study_is_logged_once(knowhue, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    study = write_logged_study(tmp_path / "study")
    code, said, err = knowhue("log", study, "--to", "tensorboard")
    assert (code, err) == (0, "")
    assert said.splitlines() == [
        "colour/seed-0-0011aabb: written",
        "multi/seed-0-0011aabb: written",
        "To see them: tensorboard --logdir logs/tensorboard",
    ]
    code, said, _ = knowhue("log", study, "--to", "tensorboard")
    assert [line.partition(": ")[2] for line in said.splitlines()[:2]] == ["already there"] * 2


@pytest.mark.parametrize("tracker", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_tracker_is_an_extra_of_its_name(knowhue, tmp_path, monkeypatch, tracker):
    for name in [each for each in sys.modules if each.partition(".")[0] == tracker]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, tracker, None)
    study = write_logged_study(tmp_path / "study")
    code, said, err = knowhue("log", study, "--to", tracker, "-o", tmp_path / "logs")
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert f"`knowhue log --to {tracker}` needs `{tracker}`, which is " in err
    assert f"pip install -e '.[{tracker}]'" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "--to", "wandb"], "Found nothing there. Is the path right?"),
        (["{study}", "--to", "aim"], "aim"),
        (["{study}", "--to", "tensorboard", "--out", "{study}"], "holds a run or a study"),
    ],
)
def test_wrong_input_is_one_line(knowhue, tmp_path, arguments, words):
    study = write_logged_study(tmp_path / "study")
    code, said, err = knowhue("log", *(each.format(study=study) for each in arguments))
    assert (code, said) == (2, "")
    assert words in err
    assert "Traceback" not in err
