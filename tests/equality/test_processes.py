"""Two processes train the model that one trains, but for the order of sums."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from knowhue.runs import read_log
from knowhue.training.train import train

TOLERANCE = 1e-4


@pytest.fixture
def config(tiny):
    return tiny(
        tasks=("colour", "class"),
        colour__width=16,  # with fewer, GroupNorm takes single channels and the bias before it is noise to Adam
        encoder__weights="package",
        pictures__drawn_count=20,
        training__heads__epochs=1,
        training__finetune__epochs=1,
    )


def train_with_two(config, out: Path):
    """The command line under torch's launcher, on the CPU."""
    settings = out.parent / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "knowhue", "train", "--config", str(settings), "--out", str(out), "--arm", "multi"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launcher, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (out / "multi").iterdir()
    return folder


def test_two_processes_train_the_model_of_one(config, tmp_path):
    one = train(config, tmp_path / "one", "multi")
    two = train_with_two(config, tmp_path / "two")
    assert two.name == one.name
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    for log, other in zip(read_log(one), read_log(two), strict=True):
        assert other["train"] == pytest.approx(log["train"], rel=1e-3, abs=1e-4)
        assert other["validation"] == pytest.approx(log["validation"], rel=1e-3, abs=1e-4)
