"""A block is computed with one golden step: another one begins it anew, and leaves what was finished."""

import pytest

from knowhue.plan import make_plan
from knowhue.report.reading import read_study
from knowhue.storage import read_json
from knowhue.study import run_study
from knowhue.training import golden
from knowhue.training.train import train

QUICK = {
    "training__heads__epochs": 1,
    "training__finetune__epochs": 1,
    "evaluation__networks": (),
    "evaluation__perceptual": (),
    "evaluation__gradient_batches": 0,
}


class Interrupted(Exception):
    """Somebody pulled the plug."""


def interrupt_at(cells):
    """A report that stops at the nth cell."""
    seen = []

    def report(event):
        seen.append(event["stage"])
        if seen.count("cell") == cells:
            raise Interrupted

    return report


@pytest.fixture
def machine(monkeypatch):
    """Makes golden steps of a made-up machine."""

    def go_to(name):
        monkeypatch.setattr(golden, "_found", {})
        monkeypatch.setattr(golden, "_train", lambda _: name)

    return go_to


def steps(root):
    """The golden step of every run and head that counts, by its place."""
    paths = [path.parent for path in root.glob("*/seed-*/environment.json")]
    paths += [path.parent for path in root.glob("heads/*/seed-*/environment.json")]
    return {
        str(path.relative_to(root)): read_json(path / "environment.json")["golden_step"] for path in paths
    }


def test_an_unfinished_block_is_begun_anew_as_a_whole_and_a_finished_one_stays(tiny, tmp_path, machine):
    plan, told = make_plan(tiny(**QUICK), ["colour", "multi"], [0, 1]), []
    machine("old")
    with pytest.raises(Interrupted):
        run_study(plan, tmp_path, report=interrupt_at(4))  # before multi, seed 1
    before = steps(tmp_path)
    finished = {
        path: (tmp_path / path / "status.json").stat().st_mtime_ns for path in before if "seed-0" in path
    }
    gate = (tmp_path / "gate" / "seed-0.json").read_bytes()
    machine("new")
    run_study(plan, tmp_path, report=told.append)
    after = steps(tmp_path)
    assert {after[path] for path in finished} == {before[path] for path in finished}
    assert all(
        (tmp_path / path / "status.json").stat().st_mtime_ns == time for path, time in finished.items()
    )
    assert (tmp_path / "gate" / "seed-0.json").read_bytes() == gate
    anew = {step for path, step in after.items() if "seed-1" in path}
    assert len(anew) == 1
    assert not anew & set(before.values())
    (note,) = (event["text"] for event in told if event["stage"] == "note")
    assert note.startswith("seed 1 is begun anew")
    assert "\n" not in note
    aside = list((tmp_path / "set-aside").rglob("environment.json"))
    assert len(aside) == sum("seed-1" in path for path in before) > 0
    page = (tmp_path / "report.html").read_text()
    assert "seed 0 with golden step" in page
    assert "seed 1 with golden step" in page
    study = read_study(tmp_path)
    assert study.faults == {}
    assert all(run.finished for arm in study.runs for run in study.of(arm))


def test_the_same_machine_goes_on_and_sets_nothing_aside(tiny, tmp_path, machine):
    plan = make_plan(tiny(**QUICK), ["colour", "class"], [0])
    machine("old")
    with pytest.raises(Interrupted):
        run_study(plan, tmp_path, report=interrupt_at(2))
    before = steps(tmp_path)
    run_study(plan, tmp_path)
    assert not (tmp_path / "set-aside").exists()
    assert before.items() <= steps(tmp_path).items()


def test_a_finished_study_stays_on_another_machine(tiny, tmp_path, machine):
    plan = make_plan(tiny(**QUICK), ["class"], [0])
    machine("old")
    run_study(plan, tmp_path)
    before = steps(tmp_path)
    machine("new")
    run_study(plan, tmp_path)
    assert steps(tmp_path) == before
    assert not (tmp_path / "set-aside").exists()


def at_the_fork(event):
    """A report that stops where the heads are done."""
    if event["stage"] == "run" and event["phase"] == "finetune":
        raise Interrupted


def test_a_single_run_is_begun_anew_with_its_heads(tiny, tmp_path, machine):
    config = tiny(**QUICK)
    machine("old")
    with pytest.raises(Interrupted):
        train(config, tmp_path, "class", at_the_fork)
    before = set(steps(tmp_path).values())
    machine("new")
    train(config, tmp_path, "class")
    assert len(set(steps(tmp_path).values())) == 1
    assert not before & set(steps(tmp_path).values())
