"""A balance's factors are the same however a run was cut, and on every process."""

import json
import math
import os
import subprocess
import sys

import pytest
import yaml

from knowhue.objectives import loss_weighting
from knowhue.presets import edit
from knowhue.runs import read_log
from knowhue.training import checkpoint
from knowhue.training.run import run_arm, train


class Interrupted(Exception):
    """Stands for a power cut."""


def without_times(folder):
    times = ("seconds", "train_seconds", "images_per_second", "diagnostics")
    return [{key: value for key, value in entry.items() if key not in times} for entry in read_log(folder)]


@pytest.mark.parametrize("cut", [1, 2])
def test_a_task_that_was_stopped_before_the_cut_stays_stopped(tiny, make_work, monkeypatch, cut):
    """Stopped after the second epoch of four; the criterion would let it go on ever after."""
    verdicts = iter(())
    monkeypatch.setattr(loss_weighting, "criterion", lambda *_: next(verdicts, None))
    unscored = {"evaluation__networks": (), "evaluation__perceptual": ()}
    config = tiny(tasks__weighting="task_constrained", tasks__stop_strip_epochs=1, **unscored)
    config = edit(config, {"training": {"heads": {"epochs": 1}, "finetune": {"epochs": 4}}})
    verdicts = iter([math.inf])
    whole = run_arm(make_work(config, "whole"), config, "multi")

    def until_cut(folder, epoch, modules, *rest):
        save(folder, epoch, modules, *rest)
        if "encoder" in modules and epoch == cut:
            raise Interrupted

    verdicts, save = iter([math.inf]), checkpoint.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", until_cut)
        with pytest.raises(Interrupted):
            run_arm(make_work(config, "cut"), config, "multi")
    resumed = run_arm(make_work(config, "cut"), config, "multi")
    assert [e["train"]["weight_class"] for e in read_log(resumed, "finetune")] == [1.0, 1.0, 0.0, 0.0]
    assert without_times(resumed) == without_times(whole)
    for name in ("model.safetensors", "per_image.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


SPYING = """
import json, os
from pathlib import Path
from knowhue.apps.program import main
from knowhue.objectives.loss_weighting import GradNorm

observe, seen = GradNorm.observe_step, []

def spy(self, losses, norms):
    observe(self, losses, norms)
    seen.append(self.weights())
    Path(__file__).with_name("rank-" + os.environ["RANK"]).write_text(json.dumps(seen))

GradNorm.observe_step = spy
main()
"""


def test_processes_that_see_other_images_keep_equal_factors(tiny, tmp_path):
    """Those of one process; each alone has other losses and other gradients."""
    config = tiny(tasks__weighting="gradnorm", tasks__weighting_learning_rate=0.05, colour__width=16)
    config = edit(config, {"training": {"heads": {"epochs": 1}, "finetune": {"epochs": 1}}})
    settings, script = tmp_path / "settings.yaml", tmp_path / "spying.py"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    script.write_text(SPYING)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [sys.executable, *launcher, "train", "--config", settings, "--out", tmp_path / "two"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first[-1] != {"colour": 1.0, "class": 1.0}
    one = train(config, tmp_path / "one", "multi")
    (two,) = (tmp_path / "two" / "multi").iterdir()
    assert two.name == one.name
    for entry, other in zip(read_log(one, "finetune"), read_log(two, "finetune"), strict=True):
        assert other["train"] == pytest.approx(entry["train"], rel=1e-3, abs=1e-4)
