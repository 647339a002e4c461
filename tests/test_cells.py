"""The cells of a plan as jobs: shared heads come first and once; the A/A gate detects differences."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from knowhue import cells
from knowhue.cells import CellStep, arithmetic_elsewhere, cell_jobs, check_gate, run_cells
from knowhue.engines.executor import Executor, InProcess
from knowhue.errors import ConfigError, RunError
from knowhue.models.heads import Classifier, Decoder
from knowhue.plan import head_folders, make_comparison, make_plan, read_cells
from knowhue.presets import head_config
from knowhue.runs import run_folder, write_log, write_status
from knowhue.storage import read_json, write_json
from knowhue.training import golden


def kinds(jobs):
    return [job.id.rsplit("/", 1)[0] for job in jobs]


def test_arms_need_their_heads_and_share_them_and_long_ones_come_first(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0])
    jobs = cell_jobs(plan, gated={0}, do=print)
    assert kinds(jobs) == [
        "head/colour", "head/class", "arm/multi", "arm/colour", "arm/class", "gate/multi",
    ]  # fmt: skip
    by_id = {job.id: job for job in jobs}
    assert len(by_id) == len(jobs)  # each shared head once
    multi = jobs[2]
    assert kinds([by_id[need] for need in multi.needs]) == ["head/colour", "head/class"]


def test_every_seed_has_its_own_jobs_and_the_gate_only_where_it_is_tried(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0, 7])
    jobs = cell_jobs(plan, gated={7}, do=print)
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
    assert [job.run() for job in jobs] == [("multi", 3)] * 3 + [("class", 3)]  # its head is the first


def test_arms_that_are_whole_ask_for_no_heads(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0])
    jobs = cell_jobs(plan, gated={0}, do=print, whole={("colour", 0), ("multi", 0)})
    assert kinds(jobs) == ["arm/multi", "arm/colour", "head/class", "arm/class", "gate/multi"]
    assert [len(job.needs) for job in jobs] == [0, 0, 0, 1, 0]
    assert "head/" not in " ".join(kinds(cell_jobs(plan, {0}, print, {(arm, 0) for arm in plan.arms})))


@pytest.fixture
def done(monkeypatch):
    """What the steps of a study are called with, instead of training."""
    calls = []
    monkeypatch.setattr(cells, "golden_step", lambda *_: "now")
    monkeypatch.setattr(
        cells, "run_head", lambda work, config, task, arm: calls.append(("head", task, config.seed))
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
        ("head", "class"),
        ("arm", "multi"),
        ("arm", "colour"),
        ("arm", "class"),
        ("gate", ""),
    ]
    assert done == [(*step, seed) for seed in (4, 2) for step in block]
    told = [(each["done"], each["total"]) for each in reported if each["stage"] == "cell"]
    assert told == [(number, 6) for number in range(7)]


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


def test_a_cell_runs_once_one_of_its_heads_does(tiny, tmp_path):
    """Ways to colour have a head each; the class head is not theirs."""
    plan = make_comparison(tiny(), ["l1", "gan"], "gan", [0])
    (head,) = head_folders(tmp_path, plan.run_config("gan", 0))
    write_status(head, {"state": "running"})
    write_log(head, [{"phase": "heads", "epoch": 1, "seconds": 1.0}])
    assert read_cells(tmp_path, plan) == [("l1", 0, "missing", 0, 4, 0.0), ("gan", 0, "running", 1, 4, 0.0)]


@pytest.mark.parametrize("state", ["finished", "diverged"])
def test_heads_that_have_ended_put_no_cell_to_work(tiny, tmp_path, state):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0])
    colour, other = head_folders(tmp_path, plan.run_config("multi", 0))
    for head in (colour, other):
        write_log(head, [{"phase": "heads", "epoch": each, "seconds": 1.0} for each in (1, 2)])
        write_status(head, {"state": state})
    assert [(cell.state, cell.epochs) for cell in read_cells(tmp_path, plan)] == [("missing", 2)] * 3
    write_status(other, {"state": "running"})
    assert [cell.state for cell in read_cells(tmp_path, plan)] == ["missing", "running", "running"]


def test_of_two_heads_a_cell_has_the_mean(tiny, tmp_path):
    plan = make_plan(tiny(), ["multi"], [0])
    for head, epochs in zip(head_folders(tmp_path, plan.run_config("multi", 0)), (2, 1), strict=True):
        write_status(head, {"state": "running"})
        write_log(head, [{"phase": "heads", "epoch": 1 + each, "seconds": 1.0} for each in range(epochs)])
    assert read_cells(tmp_path, plan) == [("multi", 0, "running", 1, 4, 0.0)]


@pytest.mark.parametrize(
    ("kind", "name", "title"),
    [
        ("head", "colour", "colour head of gan, seed 3"),
        ("arm", "gan", "gan, seed 3"),
        ("gate", "multi", "A/A gate of gan, seed 3"),
    ],
)
def test_a_step_is_called_by_its_cell(tiny, kind, name, title):
    assert CellStep(kind, name, tiny(), ("gan", 3)).title == title


class Inline(Executor):
    """Runs the jobs of an engine in this process."""

    name = "inline"
    threads = None

    def __init__(self, is_elsewhere):
        self.is_elsewhere = is_elsewhere
        self.given = []

    def execute(self, jobs, watch=lambda: None):
        self.given += jobs
        for job in jobs:
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


def test_what_workers_share_is_computed_as_they_compute(done, tiny, make_work, monkeypatch):
    """Features of float32 differ in their last digits by the number of threads."""
    before, found = torch.get_num_threads(), []
    engine = Inline(False)
    engine.threads = before + 1
    monkeypatch.setattr(engine, "execute", lambda *_, **__: None)
    monkeypatch.setattr(cells, "warm_features", lambda *_, **__: found.append(torch.get_num_threads()))
    run_cells(make_work(tiny()), make_plan(tiny(), ["colour"], [0]), engine, "now")
    assert (found, torch.get_num_threads()) == ([before + 1], before)


def test_machines_elsewhere_are_asked_how_they_compute(tiny, tmp_path, monkeypatch):
    """By a job of theirs: this machine may compute otherwise. An answer of an earlier time does not count."""
    monkeypatch.setattr(cells, "golden_step", lambda engine, threads: f"{engine.precision} by {threads}")
    write_json(tmp_path / ".arithmetic.json", {"precision": "bfloat16", "golden_step": "earlier"})
    engine = Inline(True)
    engine.threads = 3
    found = arithmetic_elsewhere(engine, tiny().training, tmp_path)
    assert found == ("float32", "float32 by 3")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny(tiny):
    """Several steps in an epoch."""
    return partial(tiny, training__batch_size=4)


@pytest.fixture
def real(tiny):
    """The real encoder, for tests about the rounding of its arithmetic."""
    return partial(tiny, encoder={"name": "tf_efficientnet_lite0"})


PARTS = ("heads", "finetune_colour", "finetune_class")


def differ(found):
    return {part for part in PARTS if found[part]["differ"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"training__precision": "bfloat16"},
        {"colour__method": "gan", "colour__gan_loss": "hinge"},
        {"colour__method": "feedforward", "colour__loss": "classification"},
        {"tasks__weighting": "gradnorm", "supervision__labelled_share": 0.5},
        {"tasks__weighting": "pcgrad"},  # joins the gradients, where the gate is to sum them
    ],
)
def test_what_arms_share_agrees_bit_for_bit_in_both_phases(real, make_work, changes):
    config = real(seed=4, **changes)
    work = make_work(config)
    found = check_gate(work, config)
    assert differ(found) == set()
    counts = [found[part]["tensors"] for part in PARTS]
    assert counts[1] > 100 < counts[2]  # the encoder is among them
    assert read_json(work.root / "gate" / "seed-4.json") == found


def test_the_default_encoder_rounds_alike_beside_a_class_head(tiny, make_work):
    # what `make study` trains; a gradient that lies otherwise in memory takes kernels that round otherwise
    encoder = {"name": "tf_efficientnet_lite0", "weights": "package"}
    config = tiny(
        training__precision="bfloat16", encoder=encoder, images__size_px=64, training__batch_size=32
    )
    assert differ(check_gate(make_work(config, count=96, size_px=64), config)) == set()


def test_a_gate_is_tried_once_for_what_it_proved(tiny, make_work, monkeypatch):
    work = make_work(tiny())
    first = check_gate(work, tiny())
    monkeypatch.setattr(cells, "_train", lambda *_: pytest.fail("tried again"))
    assert check_gate(work, tiny()) == first


def test_a_gate_that_is_damaged_is_tried_again_and_one_that_cannot_be_read_stays(
    tiny, make_work, monkeypatch
):
    work = make_work(tiny())
    path, tried = work.root / "gate" / "seed-0.json", []
    monkeypatch.setattr(cells, "_train_both_ways", lambda *_: tried.append(_) or {})
    check_gate(work, tiny())
    path.write_text("{")
    check_gate(work, tiny())
    assert len(tried) == 2
    path.unlink()
    path.symlink_to("/proc/self/mem")  # whose beginning is an input/output error
    with pytest.raises(RunError, match=r"Cannot read .*seed-0\.json`"):
        check_gate(work, tiny())


@pytest.mark.parametrize("change", ["settings", "images", "machine"])
def test_a_gate_is_not_taken_for_what_it_did_not_prove(tiny, make_work, monkeypatch, change):
    monkeypatch.setattr(cells, "_train_both_ways", lambda *_: {})
    first = check_gate(make_work(tiny()), tiny())
    config = tiny(class__label_smoothing=0.1) if change == "settings" else tiny()
    work = make_work(tiny(), seed=1 if change == "images" else 0)
    if change == "machine":
        monkeypatch.setattr(golden, "_digests", {})
        monkeypatch.setattr(golden, "_train", lambda _: "another processor")
    again = check_gate(work, config)
    assert again["proved"] != first["proved"]
    assert read_json(work.root / "gate" / "seed-0.json") == again


def test_gate_notices_what_couples_the_heads(tiny, make_work, monkeypatch):
    """Clipping by the norm over both heads is what breaks the equality in practice."""
    step = cells.train_step

    def clipped(state, batch):
        losses = step(state, batch)
        parameters = [p for p in state.model.parameters() if p.grad is not None]
        norm = torch.stack([p.grad.square().sum() for p in parameters]).sum().sqrt()
        with torch.no_grad():
            for p in parameters:
                p.sub_(1e-3 * p.grad / norm)
        return losses

    monkeypatch.setattr(cells, "train_step", clipped)
    found = check_gate(make_work(tiny()), tiny())
    assert "class.linear.weight" in found["heads"]["differ"]


class DrawingClassifier(Classifier):
    """Draws an unused random number, which changes all later draws of its arm."""

    def forward(self, pyramid):
        torch.rand(1)
        return super().forward(pyramid)


def test_gate_notices_a_random_draw_that_one_arm_has_more(tiny, make_work, monkeypatch):
    forward = Decoder.forward
    monkeypatch.setattr(Decoder, "forward", lambda self, pyramid: forward(self, _dropped(pyramid)))
    config = tiny()
    assert differ(check_gate(make_work(config, "even"), config)) == set()
    monkeypatch.setitem(gate_classifiers(), "linear", DrawingClassifier)
    found = check_gate(make_work(config, "uneven"), config)
    assert "finetune_colour" in differ(found)
    assert any(name.startswith("encoder.") for name in found["finetune_colour"]["differ"])


def _dropped(pyramid):
    return tuple(F.dropout(each, 0.2) for each in pyramid)


def gate_classifiers():
    from knowhue.models.multitask import CLASSIFIERS

    return CLASSIFIERS


def test_gate_notices_an_encoder_that_moves_with_its_batch_statistics_in_one_arm(
    tiny, make_work, monkeypatch
):
    """A fault that only fine-tuning shows: the frozen phase alone would pass."""
    make = cells.make_train_state

    def moving(engine, networks, config, phase):
        if phase == "finetune" and len(config.tasks.names) > 1:
            norm = next(m for m in networks.model.encoder.modules() if isinstance(m, nn.BatchNorm2d))
            assert norm.running_mean is not None
            norm.running_mean.add_(0.01)
        return make(engine, networks, config, phase)

    monkeypatch.setattr(cells, "make_train_state", moving)
    found = check_gate(make_work(tiny()), tiny())
    assert differ(found) == {"finetune_colour", "finetune_class"}
