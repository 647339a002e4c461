"""The golden step is repeatable, and differs if the arithmetic differs."""

import shutil

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from knowhue.config import Config, Training
from knowhue.errors import RunError
from knowhue.models.encoder import DepthwiseConv2d, DepthwiseConv2dSame
from knowhue.plan import make_comparison, make_plan
from knowhue.presets import edit
from knowhue.report.reading import read_study
from knowhue.storage import read_json, write_json
from knowhue.study import run_study
from knowhue.training import checkpoint, golden
from knowhue.training.engine import Engine
from knowhue.training.golden import golden_step
from knowhue.training.run import evaluate_run, train

pytestmark = pytest.mark.usefixtures("module_without_figures")


@pytest.fixture
def engine():
    return Engine(Training(precision="float32"))


def test_the_same_again(engine, monkeypatch):
    first = golden_step(engine)
    monkeypatch.setattr(golden, "_digests", {})
    assert (golden_step(engine), len(first)) == (first, 64)


def test_another_default_is_no_other_step(engine, monkeypatch):
    """Otherwise a release that changes one would set aside every unfinished block."""
    first = golden_step(engine)
    others = {
        "tasks": {"weights": {"colour": 2.0, "class": 5.0}, "weighting": "uncertainty"},
        "colour": {
            "method": "gan", "l1_weight": 50.0, "gan_loss": "bce", "adversarial_weight": 10.0,
            "discriminator_layers": 2, "oracle": True,
        },
        "class": {"head": "attention", "label_smoothing": 0.1},
        "training": {"weight_decay": 0.1, "finetune": {"epochs": 3, "learning_rate": 1e-3}},
    }  # fmt: skip
    monkeypatch.setattr(golden, "Config", lambda: edit(Config(), others))
    monkeypatch.setattr(golden, "_digests", {})
    assert golden_step(engine) == first


def test_it_is_computed_once_a_process(engine, monkeypatch):
    first = golden_step(engine)
    monkeypatch.setattr(golden, "_train", lambda _: pytest.fail("computed again"))
    assert golden_step(engine) == first


def test_another_precision_is_another_step(engine):
    assert golden_step(Engine(Training(precision="bfloat16"))) != golden_step(engine)


def test_other_code_is_another_step(engine, monkeypatch):
    first = golden_step(engine)
    step = golden.train_step

    def slower(state, batch):
        for group in state.optimizer.param_groups:
            group["lr"] *= 1 - 1e-6
        return step(state, batch)

    monkeypatch.setattr(golden, "train_step", slower)
    monkeypatch.setattr(golden, "_digests", {})
    assert golden_step(engine) != first


def test_depthwise_convolutions_computed_otherwise_are_another_step(monkeypatch):
    engine = Engine(Training(precision="bfloat16"))
    first = golden_step(engine)
    monkeypatch.setattr(DepthwiseConv2d, "forward", nn.Conv2d.forward)
    monkeypatch.setattr(DepthwiseConv2dSame, "forward", Conv2dSame.forward)
    monkeypatch.setattr(golden, "_digests", {})
    assert golden_step(engine) != first


def test_threads_are_those_that_are_asked_for_and_then_as_before(engine, monkeypatch):
    seen = []
    monkeypatch.setattr(golden, "_digests", {})
    monkeypatch.setattr(golden, "_train", lambda _: seen.append(torch.get_num_threads()) or str(len(seen)))
    assert golden_step(engine, threads=2) != golden_step(engine)
    assert (seen, torch.get_num_threads()) == ([2, 1], 1)


def test_nothing_else_is_drawn_otherwise(engine, monkeypatch):
    monkeypatch.setattr(golden, "_digests", {})
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    golden_step(engine)
    assert torch.equal(torch.rand(4), expected)


QUICK = {
    "training__heads__epochs": 1,
    "training__finetune__epochs": 1,
    "evaluation__networks": (),
    "evaluation__perceptual": (),
    "evaluation__gradient_batches": 0,
}


class Interrupted(Exception):
    """Simulates a power cut."""


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
    """Simulates golden steps of another machine."""

    def go_to(name):
        monkeypatch.setattr(golden, "_digests", {})
        monkeypatch.setattr(golden, "_train", lambda _: name)

    return go_to


def steps(root):
    """The golden step of every run and head that counts, by its place."""
    paths = [path.parent for path in root.glob("*/seed-*/environment.json")]
    paths += [path.parent for path in root.glob("heads/*/seed-*/environment.json")]
    return {
        str(path.relative_to(root)): read_json(path / "environment.json")["golden_step"] for path in paths
    }


def test_an_unfinished_block_starts_again_as_a_whole_and_a_finished_one_stays(tiny, tmp_path, machine):
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
    assert note.startswith("seed 1 starts again")
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
    """A report that stops the run when the heads are trained."""
    if event["stage"] == "run" and event["phase"] == "finetune":
        raise Interrupted


def test_a_single_run_starts_again_with_its_heads(tiny, tmp_path, machine):
    config = tiny(**QUICK)
    machine("old")
    with pytest.raises(Interrupted):
        train(config, tmp_path, "class", at_the_fork)
    before = set(steps(tmp_path).values())
    machine("new")
    train(config, tmp_path, "class")
    assert len(set(steps(tmp_path).values())) == 1
    assert not before & set(steps(tmp_path).values())


@pytest.fixture(scope="module")
def of_old(tiny, tmp_path_factory):
    """A study of all three arms that was finished on the machine `old`."""
    root = tmp_path_factory.mktemp("blocks") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "_digests", {})
        patch.setattr(golden, "_train", lambda _: "old")
        run_study(make_plan(tiny(**QUICK), THREE, [0]), root)
    return root


THREE = ["colour", "class", "multi"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "status.json"])
def test_damage_that_needs_training_starts_the_block_again_at_the_first_call(
    of_old, tiny, tmp_path, machine, name
):
    root = shutil.copytree(of_old, tmp_path / "study")
    flip(next((root / "multi").glob("seed-*")) / name)
    machine("new")
    run_study(make_plan(tiny(**QUICK), THREE, [0]), root)
    assert len(set(steps(root).values())) == 1
    assert not set(steps(root).values()) & set(steps(of_old).values())
    assert read_study(root).faults == {}


def test_damage_that_needs_scoring_leaves_the_block(of_old, tiny, tmp_path, machine):
    root = shutil.copytree(of_old, tmp_path / "study")
    (multi,) = (root / "multi").glob("seed-*")
    flip(multi / "scores.json")
    before = read_json(multi / "environment.json")["golden_step"]
    machine("new")
    run_study(make_plan(tiny(**QUICK), THREE, [0]), root)
    assert steps(root) == steps(of_old)
    assert not (root / "set-aside").exists()
    scorer = read_json(multi / "scores.json")["golden_step"]
    assert scorer != before
    page = (root / "report.html").read_text()
    assert f"Scored with another golden step: multi, seed 0 (golden step {scorer[:12]})" in page


def test_scoring_again_says_by_what(of_old, tiny, tmp_path, machine):
    root = shutil.copytree(of_old, tmp_path / "study")
    (run,) = (root / "class").glob("seed-*")
    trained = read_json(run / "environment.json")["golden_step"]
    assert read_json(run / "scores.json")["golden_step"] == trained
    machine("new")
    evaluate_run(run)
    assert read_json(run / "environment.json")["golden_step"] == trained
    assert (
        read_json(run / "scores.json")["golden_step"]
        == golden.golden_step(Engine(tiny().training))
        != trained
    )


def test_networks_without_heads_do_not_train_into_the_block_of_another_machine(tiny, tmp_path, machine):
    plan = make_comparison(tiny(**QUICK), ["unet", "pix2pix"], seeds=[0])
    colour = {**plan.arms["pix2pix"]["colour"], "pix2pix": {"width": 4}}
    narrow = {**plan.arms["pix2pix"], "colour": colour}
    plan = plan.model_copy(update={"arms": {**plan.arms, "pix2pix": narrow}})
    machine("old")
    run_study(plan, tmp_path)
    before = set(steps(tmp_path).values())
    flip(next((tmp_path / "pix2pix").glob("seed-*")) / "model.safetensors")
    machine("new")
    run_study(plan, tmp_path)
    assert len(set(steps(tmp_path).values())) == 1
    assert not before & set(steps(tmp_path).values())


@pytest.mark.parametrize("is_study", [True, False])
def test_a_single_run_takes_no_heads_from_finished_arms(of_old, tiny, tmp_path, machine, is_study):
    root = shutil.copytree(of_old, tmp_path / "study")
    shutil.rmtree(root / "multi")
    if is_study:
        described = read_json(root / "study.json")
        described["arms"].pop("multi")
        described["questions"] = {}
        write_json(root / "study.json", described)
    else:
        (root / "study.json").unlink()
    before = steps(root)
    machine("new")
    refusal = r"than class/seed-0-\w+, colour/seed-0-\w+, with which it .* or name another folder\.$"
    with pytest.raises(RunError, match=refusal) as error:
        train(tiny(**QUICK), root, "multi")
    assert "\n" not in str(error.value)
    train(tiny(**QUICK), root, "class")  # nothing to do
    assert steps(root) == before
    machine("old")
    train(tiny(**QUICK), root, "multi")
    assert set(steps(root).values()) == set(before.values())


def test_a_single_run_is_refused_where_it_would_mix_a_studys_block(of_old, tiny, tmp_path, machine):
    """Class shares no head with colour, but is compared with it."""
    root = shutil.copytree(of_old, tmp_path / "study")
    shutil.rmtree(root / "multi")
    flip(next((root / "class").glob("seed-*")) / "model.safetensors")
    machine("new")
    with pytest.raises(RunError, match=r"than colour/seed-0-\w+, with which"):
        train(tiny(**QUICK), root, "class")
    assert steps(root).items() <= steps(of_old).items()
    assert not (root / "set-aside").exists()


def test_a_single_run_sets_an_unfinished_studys_block_aside_as_a_whole(tiny, tmp_path, machine):
    config = tiny(**QUICK)
    machine("old")
    with pytest.raises(Interrupted):
        run_study(make_plan(config, ["colour", "multi"], [0]), tmp_path, report=at_the_fork)
    machine("new")
    train(config, tmp_path, "multi")
    assert len(set(steps(tmp_path).values())) == 1


def test_nothing_that_was_computed_is_deleted(tiny, tmp_path, machine):
    """From machine to machine and back, each time interrupted."""
    plan = make_plan(tiny(**QUICK), ["class"], [0])
    heads = []
    for name in ("one", "two", "one", "two", "one"):
        machine(name)
        with pytest.raises(Interrupted):
            run_study(plan, tmp_path, report=at_the_fork)
        (head,) = (tmp_path / "heads" / "class").glob("seed-*")
        (head / "mark").write_text(str(len(heads)))
        heads.append(head)
    marks = [path.read_text() for path in tmp_path.rglob("mark")]
    assert sorted(marks) == ["0", "1", "2", "3", "4"]
    homes = sorted(path.name for path in (tmp_path / "set-aside").iterdir())
    assert len(homes) == 4
    assert sum(name.endswith("-2") for name in homes) == 2


@pytest.mark.parametrize("lost", [["status.json"], ["status.json", "environment.json"]])
def test_a_state_is_not_gone_on_with_by_another_golden_step_whatever_was_lost(
    tiny, tmp_path, machine, monkeypatch, lost
):
    plan = make_plan(tiny(**(QUICK | {"training__finetune__epochs": 2})), ["class"], [0])
    machine("old")
    save = checkpoint.save_checkpoint

    def then_stop(*arguments):
        save(*arguments)
        if "heads" not in arguments[0].parts:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", then_stop)
        with pytest.raises(Interrupted):
            run_study(plan, tmp_path)
    (run,) = (tmp_path / "class").glob("seed-*")
    assert list(run.glob("checkpoints/state.pt"))
    for name in lost:
        (run / name).unlink()
    machine("new")
    begun = []
    run_study(plan, tmp_path, report=begun.append)
    tuned = {event["epoch"] for event in begun if event["stage"] == "train" and event["epochs"] == 2}
    assert tuned == {1, 2}
    assert len(set(steps(tmp_path).values())) == 1
    assert list((tmp_path / "set-aside").glob("*/class/seed-*/checkpoints/state.pt"))
