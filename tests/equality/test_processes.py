"""Two processes train the model that one trains, but for the order of sums."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from knowhue.plan import make_plan, read_plan
from knowhue.runs import read_log
from knowhue.storage import read_json
from knowhue.study import run_study
from knowhue.training.run import train

TOLERANCE = 1e-4


@pytest.fixture
def config(tiny):
    return tiny(
        tasks__names=("colour", "class"),
        colour__width=16,  # with fewer, GroupNorm takes single channels and the bias before it is noise to Adam
        encoder__weights="package",
        images__drawn_count=20,
        training__heads__epochs=1,
        training__finetune__epochs=1,
    )


def run_with_two(config, out: Path, *command: str):
    """The command line under torch's launcher, on the CPU."""
    settings = out.parent / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "knowhue"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *launcher, *command, "--config", str(settings), "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assert_same_model(one: Path, two: Path):
    """The same weights, logs and final scores, but for the order of sums."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    for log, other in zip(read_log(one), read_log(two), strict=True):
        assert other["train"] == pytest.approx(log["train"], rel=1e-3, abs=1e-4)
        assert other["validation"] == pytest.approx(log["validation"], rel=1e-3, abs=1e-4)
    scores, others = (read_json(folder / "scores.json") for folder in (one, two))
    assert others["metrics"] == pytest.approx(scores["metrics"], rel=1e-3, abs=1e-3)
    distance, other = (each["distribution"]["fd_lite0"] for each in (scores, others))
    assert (other["images"], other["value"]) == (
        distance["images"],
        pytest.approx(distance["value"], rel=1e-3),
    )


def test_two_processes_train_the_model_of_one(config, tmp_path):
    one = train(config, tmp_path / "one", "multi")
    run_with_two(config, tmp_path / "two", "train", "--arm", "multi")
    two = tmp_path / "two" / "multi" / one.name
    assert_same_model(one, two)
    shares, others = (read_json(folder / "gradient_shares.json") for folder in (one, two))
    for moment in ("fork", "end"):
        assert others[moment]["norms"] == pytest.approx(shares[moment]["norms"], rel=1e-3)


def test_two_processes_run_the_study_of_one(config, tmp_path):
    """With a gate in the block, and gradients that all processes must weigh alike."""
    plan = make_plan(config, ["multi-pcgrad"])
    run_study(plan, tmp_path / "one")
    run_with_two(config, tmp_path / "two", "study", "--arms", "multi-pcgrad")
    assert read_plan(tmp_path / "two").frozen == plan.frozen
    gate = read_json(tmp_path / "two" / "gate" / "seed-0.json")
    assert [each["differ"] for part, each in gate.items() if part != "proved"] == [[]] * 3
    (one,) = (tmp_path / "one" / "multi-pcgrad").iterdir()
    assert_same_model(one, tmp_path / "two" / "multi-pcgrad" / one.name)
    assert {"weight_colour", "weight_class"} <= read_log(one)[-1]["train"].keys()
