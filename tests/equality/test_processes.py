"""Two processes train the same model as one process, except for the order of sums."""

import gc
import json
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from empty_figures import empty_figures
from knowhue.apps.program import main
from knowhue.engines import executor
from knowhue.objectives.weighting import GradNorm
from knowhue.plan import make_plan, read_plan
from knowhue.report import page
from knowhue.runs import read_log
from knowhue.storage import read_json
from knowhue.study import run_study
from knowhue.training.run import train
from small_encoder import add_small_encoder
from small_features import use_small_features

TOLERANCE = 1e-4
ARMS = ("multi", "multi-pcgrad")
pytestmark = pytest.mark.usefixtures("without_figures")


def launch(root: Path, commands: list[list[str]]) -> None:
    """Run commands in sequence in two processes, started as `torchrun --standalone` does."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    add_small_encoder()
    gc.freeze()  # accelerate collects garbage before each phase, which would copy all that the processes share
    settings = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
    elastic_launch(settings, run_commands)(root, commands)


def run_commands(root: Path, commands: list[list[str]]) -> None:
    """Run the commands in one of the processes, and write the weights of GradNorm to a file."""
    os.environ |= {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    page.FIGURES = empty_figures()
    use_small_features(pytest.MonkeyPatch())
    observe, seen = GradNorm.observe_step, []

    def spy(self, losses, norms):
        observe(self, losses, norms)
        seen.append(self.weights())
        (root / f"rank-{os.environ['RANK']}").write_text(json.dumps(seen))

    GradNorm.observe_step = spy
    for command in commands:
        sys.argv = ["knowhue", *command]
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code


@pytest.fixture(scope="module")
def config(tiny):
    return tiny(
        tasks__names=("colour", "class"),
        training__batch_size=4,
        colour__width=16,  # with fewer, GroupNorm has single channels, and the bias before it has a noisy gradient
        encoder={"name": "tf_efficientnet_lite0", "weights": "package"},
        images__drawn_count=20,
        evaluation={"gradient_batches": 2, "diagnose_every_steps": 25},
        training__heads__epochs=1,
        training__finetune__epochs=1,
    )


@pytest.fixture(scope="module")
def gradnorm(tiny):
    return tiny(
        tasks={"weighting": "gradnorm", "weighting_learning_rate": 0.05},
        colour__width=16,
        training={"batch_size": 4, "heads": {"epochs": 1}, "finetune": {"epochs": 1}},
    )


@pytest.fixture(scope="module")
def together(config, gradnorm, tmp_path_factory):
    """A folder with `study`, `train` and a file per process, made by two processes of torch's launcher."""
    root = tmp_path_factory.mktemp("two")
    commands = []
    for command, settings, *options in (("study", config, "--arms", ",".join(ARMS)), ("train", gradnorm)):
        (root / f"{command}.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        commands.append(
            [command, *options, "--config", str(root / f"{command}.yaml"), "--out", str(root / command)]
        )
    launcher = executor._context().Process(target=launch, args=(root, commands))
    launcher.start()
    launcher.join(600)
    assert launcher.exitcode == 0
    return root


def assert_same_model(one: Path, two: Path):
    """Weights, logs and final scores are equal, except for the order of sums."""
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


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The same study, trained by one process."""
    root = tmp_path_factory.mktemp("one")
    run_study(make_plan(config, ARMS), root)
    return root


@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_train_the_model_of_one(alone, together, arm):
    """With the default weighting, and with gradient weights that must be equal in all processes."""
    (one,) = (alone / arm).iterdir()
    two = together / "study" / arm / one.name
    assert_same_model(one, two)
    shares, others = (read_json(folder / "gradient_shares.json") for folder in (one, two))
    for moment in ("fork", "end"):
        assert others[moment]["norms"] == pytest.approx(shares[moment]["norms"], rel=1e-3)
    weighted = {"weight_colour", "weight_class"} <= read_log(one)[-1]["train"].keys()
    assert weighted == (arm == "multi-pcgrad")


def test_two_processes_run_the_study_of_one(alone, together):
    """The block includes the A/A gate."""
    assert read_plan(together / "study").frozen == read_plan(alone).frozen
    gate = read_json(together / "study" / "gate" / "seed-0.json")
    assert [each["differ"] for part, each in gate.items() if part != "proved"] == [[]] * 3


def test_processes_that_see_other_images_keep_equal_factors(gradnorm, together, tmp_path):
    """GradNorm's weights equal those of one process, although each process has other losses and gradients."""
    first, second = (json.loads((together / f"rank-{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first[-1] != {"colour": 1.0, "class": 1.0}
    one = train(gradnorm, tmp_path, "multi")
    (two,) = (together / "train" / "multi").iterdir()
    assert two.name == one.name
    for entry, other in zip(read_log(one, "finetune"), read_log(two, "finetune"), strict=True):
        assert other["train"] == pytest.approx(entry["train"], rel=1e-3, abs=1e-4)
