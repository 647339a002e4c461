"""Of two identical commands on one folder, one does the work and the other is refused in one line."""

import sys
import time

import pytest
import yaml
from safetensors.torch import load_file

from empty_figures import empty_figures
from knowhue.apps.program import main
from knowhue.engines import executor
from knowhue.plan import make_plan
from knowhue.report import page
from knowhue.study import run_study
from small_encoder import add_small_encoder


def study(arguments, errors):
    """Start the command in its own process, with errors written to a file."""
    add_small_encoder()
    page.FIGURES = empty_figures()
    sys.argv = ["knowhue", "study", *arguments]
    with errors.open("w") as sys.stderr, errors.with_name("printed").open("a") as sys.stdout:
        main()


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
    arguments = ["--arms", "multi", "--config", str(settings), "--out", str(tmp_path / "out")]
    both, errors = [], [tmp_path / "errors-0", tmp_path / "errors-1"]
    for path in errors:
        both.append(executor._context().Process(target=study, args=(arguments, path)))
        both[-1].start()
        time.sleep(offset_s)
    for process in both:
        process.join(300)
    codes, said = [process.exitcode for process in both], [path.read_text() for path in errors]
    assert sorted(codes) == [0, 2], said
    refused = said[codes.index(2)].strip().splitlines()[-1]
    assert "is in use by" in refused
    assert f"process {both[codes.index(0)].pid}" in refused
    run_study(make_plan(config, ["multi"]), tmp_path / "alone")
    trained = list((tmp_path / "alone").rglob("model.safetensors"))
    assert len(trained) == 3  # two heads and their arm
    for alone in trained:
        shared = tmp_path / "out" / alone.relative_to(tmp_path / "alone")
        one, other = load_file(alone), load_file(shared)
        assert all((one[name] == other[name]).all() for name in one)
