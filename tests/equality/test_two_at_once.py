"""Two identical commands on one folder: one does the work as if alone, the other is refused in one line."""

import os
import subprocess
import sys
import time

import pytest
import yaml
from safetensors.torch import load_file

from knowhue.plan import make_plan
from knowhue.study import run_study

KNOWHUE = """
from knowhue.apps.program import main
from small_encoder import add_small_encoder

add_small_encoder()
main()
"""


@pytest.fixture
def config(tiny):
    return tiny(
        training__heads={"epochs": 1},
        training__finetune={"epochs": 2},
        evaluation={"networks": (), "perceptual": ()},
    )


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "offset_s", [0.0, pytest.param(0.5, marks=pytest.mark.slow), pytest.param(2.0, marks=pytest.mark.slow)]
)
def test_the_second_is_refused_and_the_first_is_undisturbed(config, tmp_path, offset_s):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [
        sys.executable,
        "-c",
        KNOWHUE,
        "study",
        "--arms",
        "multi",
        "--config",
        str(settings),
        "--out",
        str(tmp_path / "out"),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    both = []
    for _ in range(2):
        both.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        )
        time.sleep(offset_s)
    errors = [process.communicate(timeout=300)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], errors
    refused = errors[codes.index(2)].strip().splitlines()[-1]
    assert "is in use by" in refused
    assert f"process {both[codes.index(0)].pid}" in refused
    run_study(make_plan(config, ["multi"]), tmp_path / "alone")
    trained = list((tmp_path / "alone").rglob("model.safetensors"))
    assert len(trained) == 3  # two heads and their arm
    for alone in trained:
        shared = tmp_path / "out" / alone.relative_to(tmp_path / "alone")
        one, other = load_file(alone), load_file(shared)
        assert all((one[name] == other[name]).all() for name in one)
