"""A plan's cells as jobs: what arms share is asked for once, and before them."""

from dataclasses import replace

import pytest

from knowhue import cells
from knowhue.cells import CellStep, arithmetic_elsewhere, cell_jobs, run_cells
from knowhue.engines.executor import InProcess, each_once
from knowhue.errors import ConfigError
from knowhue.plan import make_plan, read_cells
from knowhue.runs import run_folder, write_log, write_status
from knowhue.storage import write_json
from knowhue.training.phases import head_config


def kinds(jobs):
    return [job.id.rsplit("/", 1)[0] for job in jobs]


def test_arms_need_their_heads_and_share_them(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0])
    jobs = each_once(cell_jobs(plan, gated={0}, do=print))
    assert kinds(jobs) == [
        "head/colour", "arm/colour", "head/class", "arm/class", "gate/multi", "arm/multi",
    ]  # fmt: skip
    by_id = {job.id: job for job in jobs}
    multi = jobs[-1]
    assert kinds([by_id[need] for need in multi.needs]) == ["head/colour", "head/class"]


def test_every_seed_has_its_own_jobs_and_the_gate_only_where_it_is_tried(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0, 7])
    jobs = each_once(cell_jobs(plan, gated={7}, do=print))
    assert len(jobs) == 5 + 6
    assert kinds(jobs).count("gate/multi") == 1
    assert len({job.id for job in jobs}) == len(jobs)


def test_an_id_names_the_same_work_in_every_call(tiny):
    plan = make_plan(tiny(), ["multi"], [0])
    one, two = (cell_jobs(plan, gated=(), do=print) for _ in range(2))
    assert [job.id for job in one] == [job.id for job in two]
    other = cell_jobs(make_plan(tiny(training__batch_size=8), ["multi"], [0]), gated=(), do=print)
    assert not {job.id for job in one} & {job.id for job in other}


def test_jobs_say_which_cell_they_are_done_for(tiny):
    plan = make_plan(tiny(), ["class", "multi"], [3])
    jobs = cell_jobs(plan, gated=(), do=lambda step: step.cell)
    assert [job.run() for job in jobs] == [("class", 3)] * 2 + [("multi", 3)] * 3


def test_arms_that_are_whole_ask_for_no_heads(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0])
    jobs = each_once(cell_jobs(plan, gated={0}, do=print, whole={("colour", 0), ("multi", 0)}))
    assert kinds(jobs) == ["arm/colour", "head/class", "arm/class", "gate/multi", "arm/multi"]
    assert [len(job.needs) for job in jobs] == [0, 0, 1, 0, 0]
    assert "head/" not in " ".join(kinds(cell_jobs(plan, {0}, print, {(arm, 0) for arm in plan.arms})))


@pytest.fixture
def done(monkeypatch):
    """What the steps of a study are called with, instead of training."""
    calls = []
    monkeypatch.setattr(cells, "golden_step", lambda *_: "now")
    monkeypatch.setattr(
        cells, "run_head", lambda work, config, task: calls.append(("head", task, config.seed))
    )
    monkeypatch.setattr(cells, "check_gate", lambda work, config: calls.append(("gate", "", config.seed)))
    monkeypatch.setattr(cells, "run_arm", lambda work, config, arm: calls.append(("arm", arm, config.seed)))
    return calls


def test_steps_are_run_in_this_process_and_each_cell_is_reported_once(done, tiny, make_work):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [4, 2])
    reported = []
    run_cells(make_work(tiny(), report=reported.append), plan, InProcess(), "now")
    block = [
        ("head", "colour"),
        ("arm", "colour"),
        ("head", "class"),
        ("arm", "class"),
        ("gate", ""),
        ("arm", "multi"),
    ]
    assert done == [(*step, seed) for seed in (4, 2) for step in block]
    assert [(each["done"], each["arm"], each["seed"]) for each in reported] == [
        (number, arm, seed) for number, (arm, seed) in enumerate(plan.cells)
    ]
    assert {each["total"] for each in reported} == {6}


def test_what_has_ended_asks_for_no_heads_again(done, tiny, make_work, monkeypatch):
    plan = make_plan(tiny(), ["colour", "class"], [0])
    work = make_work(tiny())
    write_status(run_folder(work.root, "colour", plan.run_config("colour", 0)), {"state": "finished"})
    monkeypatch.setattr(cells, "inspect_run", lambda folder: (folder.exists(), []))
    run_cells(work, plan, InProcess(), "now")
    assert done == [("arm", "colour", 0), ("head", "class", 0), ("arm", "class", 0)]


@pytest.mark.parametrize("error", [ConfigError("no"), KeyboardInterrupt()])
def test_the_first_failure_ends_the_work(done, tiny, make_work, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(cells, "run_arm", fail)
    with pytest.raises(type(error)):
        run_cells(make_work(tiny()), make_plan(tiny(), ["colour", "class"], [0]), InProcess(), "now")
    assert done == [("head", "colour", 0)]


def test_a_head_has_one_id_whichever_arm_needs_it(tiny):
    plan = make_plan(tiny(), ["colour", "multi"], [0])
    ids = {
        CellStep("head", "colour", head_config(plan.run_config(arm, 0), "colour"), (arm, 0)).id
        for arm in ("colour", "multi")
    }
    assert len(ids) == 1


def test_how_far_each_cell_is_is_read_from_its_files(tiny, tmp_path):
    plan = make_plan(tiny(), ["colour", "class"], [0])
    colour = run_folder(tmp_path, "colour", plan.run_config("colour", 0))
    assert [cell.state for cell in read_cells(tmp_path, plan)] == ["missing", "missing"]
    assert [(cell.epochs, cell.of) for cell in read_cells(tmp_path, plan)] == [(0, 4), (0, 4)]
    write_status(colour, {"state": "running"})
    write_log(colour, [{"phase": "finetune", "epoch": 1, "seconds": 1.25}])
    assert read_cells(tmp_path, plan)[0] == ("colour", 0, "running", 3, 4, 1.2)
    write_status(colour, {"state": "finished", "seconds": {"evaluate": 2.0}})
    assert read_cells(tmp_path, plan)[0][2:] == ("finished", 3, 4, 3.2)


class Inline:
    """Runs the jobs of an engine in this process."""

    name, threads = "inline", None

    def __init__(self, is_elsewhere):
        self.is_elsewhere = is_elsewhere
        self.given = []

    def execute(self, jobs, watch=lambda: None):
        self.given += each_once(jobs)
        for job in each_once(jobs):
            job.run()
        watch()


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_an_engine_is_given_the_jobs_that_one_process_does(done, tiny, make_work, monkeypatch, is_elsewhere):
    """The features come first, where they are needed, and each worker opens the folder once."""
    plan, work, reported = make_plan(tiny(), ["colour", "class", "multi"], [0]), make_work(tiny()), []
    work, engine = replace(work, report=reported.append), Inline(is_elsewhere)
    opened, warmed = [], []

    def load(folder, *_, **how):
        opened.append((folder, how["thorough"]))
        return work.prepared

    def warm(where, configs):
        warmed.append((where is work, configs))

    monkeypatch.setattr(cells, "load_prepared", load)
    monkeypatch.setattr(cells, "warm_features", warm)
    run_cells(work, plan, engine, "now")
    by_workers = list(done)
    done.clear()
    run_cells(make_work(tiny(), "alone"), plan, InProcess(), "now")
    assert by_workers == done
    assert opened == [(work.root / "images", False)]
    assert warmed == [(not is_elsewhere, [plan.run_config(arm, 0) for arm in plan.arms])]
    assert (engine.given[0].id == "features") == is_elsewhere
    assert all("features" in job.needs for job in engine.given[1:]) == is_elsewhere
    (event,) = reported
    assert [cell.state for cell in event["cells"]] == ["missing"] * 3


def test_machines_elsewhere_are_asked_how_they_compute(tiny, tmp_path, monkeypatch):
    """By a job of theirs: this machine may compute otherwise. An answer of an earlier time does not count."""
    monkeypatch.setattr(cells, "golden_step", lambda engine, threads: f"{engine.precision} by {threads}")
    write_json(tmp_path / ".arithmetic.json", {"precision": "bfloat16", "golden_step": "earlier"})
    engine = Inline(True)
    engine.threads = 3
    found = arithmetic_elsewhere(engine, tiny().training, tmp_path)
    assert found == ("float32", "float32 by 3")
    assert list(tmp_path.iterdir()) == []
