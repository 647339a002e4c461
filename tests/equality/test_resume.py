"""A run that is interrupted and resumed ends with the same numbers as an uninterrupted run."""

import math
from functools import partial

import pytest

from knowhue.objectives import weighting
from knowhue.presets import edit
from knowhue.runs import has_ended, read_log
from knowhue.training import checkpoint
from knowhue.training.run import run_arm

TIMES = ("seconds", "train_seconds", "images_per_second")


class Interrupted(Exception):
    """Simulates a power cut."""


def interrupt_after(steps):
    """A report that stops the run at its nth training step."""
    seen = 0

    def report(event):
        nonlocal seen
        seen += event["stage"] == "train"
        if seen > steps:
            raise Interrupted

    return report


def numbers(folder):
    return [timeless(entry) for entry in read_log(folder)]


def timeless(entry):
    """A log entry or an entry of its diagnostics, without times."""
    looks = {"diagnostics": [timeless(look) for look in entry.get("diagnostics", ())]}
    return {key: value for key, value in (entry | looks).items() if key not in TIMES}


UNSCORED = {"evaluation__networks": (), "evaluation__perceptual": ()}
STEPS_AN_EPOCH = 3  # 12 training images in batches of 4


@pytest.fixture
def tiny(tiny):
    """Several steps in an epoch."""
    return partial(tiny, training__batch_size=4)


@pytest.mark.parametrize("arm", ["colour", "multi"])
def test_resumed_is_uninterrupted(tiny, make_work, arm):
    names = ("colour",) if arm == "colour" else ("colour", "class")
    diagnosed = {"evaluation__gradient_batches": 1, "evaluation__diagnose_every_steps": 25}
    config = tiny(tasks__names=names, **diagnosed)
    whole = run_arm(make_work(config, "whole"), config, arm)
    heads = 2 * STEPS_AN_EPOCH * len(config.tasks.names)
    for steps in (1, STEPS_AN_EPOCH + 1):  # in the first epoch, in the second
        with pytest.raises(Interrupted):
            run_arm(make_work(config, "cut", interrupt_after(steps)), config, arm)
    while_finetuning = interrupt_after(heads - STEPS_AN_EPOCH + STEPS_AN_EPOCH + 2)
    with pytest.raises(Interrupted):
        run_arm(make_work(config, "cut", while_finetuning), config, arm)
    resumed = run_arm(make_work(config, "cut"), config, arm)
    assert numbers(resumed) == numbers(whole)
    assert len(numbers(resumed)) == 4
    for name in ("model.safetensors", "scores.json", "per_image.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("weighting", ["dwa", "gradnorm"])
def test_a_resumed_balance_goes_on_from_what_it_has_seen(tiny, make_work, weighting):
    phases = {"heads": {"epochs": 1}, "finetune": {"epochs": 3}}
    config = edit(tiny(tasks__weighting=weighting, **UNSCORED), {"training": phases})
    assert_resumes(config, make_work, "multi", heads=2 * STEPS_AN_EPOCH)


@pytest.mark.parametrize("method", ["pix2pix", "palette"])
def test_a_resumed_network_from_scratch_draws_what_it_would_have_drawn(tiny, make_work, method):
    """Dropout; random noise and noise levels, and the moving average of the weights."""
    small = {"palette": {"width": 4, "multipliers": (1, 2), "sample_steps": 2}, "pix2pix": {"width": 4}}
    config = tiny(tasks__names=("colour",), colour={"method": method, **small}, **UNSCORED)
    assert_resumes(config, make_work, "colour", heads=0)


def assert_resumes(config, make_work, arm, heads):
    """The run is interrupted in the third epoch of fine-tuning, and resumed."""
    whole = run_arm(make_work(config, "whole"), config, arm)
    with pytest.raises(Interrupted):
        run_arm(make_work(config, "cut", interrupt_after(heads + 2 * STEPS_AN_EPOCH + 1)), config, arm)
    resumed = run_arm(make_work(config, "cut"), config, arm)
    assert numbers(resumed) == numbers(whole)
    for name in ("model.safetensors", "per_image.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


def test_finished_run_is_not_repeated(tiny, make_work):
    config = tiny(tasks__names=("class",), training__heads__epochs=1, training__finetune__epochs=1)
    folder = run_arm(make_work(config), config, "class")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (folder / "checkpoints" / "1").mkdir(
        parents=True
    )  # left by a process that was killed after it wrote the status
    events = []
    assert run_arm(make_work(config, report=events.append), config, "class") == folder
    assert has_ended(folder)
    assert events == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tiny, make_work):
    short = {"tasks__names": ("colour",), "training__heads__epochs": 1, "training__finetune__epochs": 1}
    folders = [
        run_arm(make_work(config, name), config, "colour")
        for name, config in (("a", tiny(**short)), ("b", tiny(**short)), ("c", tiny(seed=1, **short)))
    ]
    first, again, other = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert first == again != other


def test_a_task_that_was_stopped_before_the_cut_stays_stopped(tiny, make_work, monkeypatch):
    """A head is stopped after the second of four epochs; afterwards the criterion alone would let it train."""
    verdicts = iter(())
    monkeypatch.setattr(weighting, "criterion", lambda *_: next(verdicts, None))
    config = tiny(tasks__weighting="task_constrained", tasks__stop_strip_epochs=1, **UNSCORED)
    phases = {"heads": {"epochs": 1}, "finetune": {"epochs": 4}}
    config = edit(config, {"training": {"batch_size": 12, **phases}})  # one step an epoch
    verdicts = iter([math.inf])
    whole = run_arm(make_work(config, "whole"), config, "multi")
    save = checkpoint.save_checkpoint

    def until_cut(folder, epoch, modules, *rest):
        save(folder, epoch, modules, *rest)
        if "encoder" in modules and epoch == cut:
            raise Interrupted

    for cut in (1, 2):
        verdicts = iter([math.inf])
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save_checkpoint", until_cut)
            with pytest.raises(Interrupted):
                run_arm(make_work(config, f"cut-{cut}"), config, "multi")
        resumed = run_arm(make_work(config, f"cut-{cut}"), config, "multi")
        assert [e["train"]["weight_class"] for e in read_log(resumed, "finetune")] == [1.0, 1.0, 0.0, 0.0]
        assert numbers(resumed) == numbers(whole)
        for name in ("model.safetensors", "per_image.csv"):
            assert (resumed / name).read_bytes() == (whole / name).read_bytes(), (cut, name)
