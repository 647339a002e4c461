"""A balance's factors are the same however a run was cut."""

import math

import pytest

from knowhue.objectives import weighting
from knowhue.presets import edit
from knowhue.runs import read_log
from knowhue.training import checkpoint
from knowhue.training.run import run_arm


class Interrupted(Exception):
    """Stands for a power cut."""


def without_times(folder):
    times = ("seconds", "train_seconds", "images_per_second", "diagnostics")
    return [{key: value for key, value in entry.items() if key not in times} for entry in read_log(folder)]


def test_a_task_that_was_stopped_before_the_cut_stays_stopped(tiny, make_work, monkeypatch):
    """Stopped after the second epoch of four; the criterion would let it go on ever after."""
    verdicts = iter(())
    monkeypatch.setattr(weighting, "criterion", lambda *_: next(verdicts, None))
    unscored = {"evaluation__networks": (), "evaluation__perceptual": ()}
    config = tiny(tasks__weighting="task_constrained", tasks__stop_strip_epochs=1, **unscored)
    config = edit(config, {"training": {"heads": {"epochs": 1}, "finetune": {"epochs": 4}}})
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
        assert without_times(resumed) == without_times(whole)
        for name in ("model.safetensors", "per_image.csv"):
            assert (resumed / name).read_bytes() == (whole / name).read_bytes(), (cut, name)
