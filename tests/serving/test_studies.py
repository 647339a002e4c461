import re
from collections.abc import Callable
from pathlib import Path

import pytest

from knowhue.config import Config
from knowhue.plan import make_plan
from knowhue.runs import FORMAT, run_folder, write_log
from knowhue.serving.studies import METRICS, panel
from knowhue.storage import write_json

BASELINES = {"gray": {"ab_l1": 14.256}, "majority_class": {"balanced_accuracy": 0.25}}
ERROR, ACCURACY = METRICS


@pytest.fixture
def charts(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """The two charts, in HTML, of a study whose first multi-task run has these scores: `charts([12.0], [0.4])`."""

    def draw(
        errors: list[float], accuracies: list[float], baselines: dict | None = None, frozen: int = 0
    ) -> tuple[str, str]:
        study, plan = tmp_path / "small", make_plan(Config(), seeds=(0, 1))
        write_json(study / "study.json", {"format": FORMAT, "hash": "0" * 64, **plan.model_dump(mode="json")})
        if baselines is not None:
            write_json(study / "baselines.json", baselines)
        log = [
            {
                "phase": "heads" if epoch <= frozen else "finetune", "epoch": epoch, "seconds": 1.0,
                "validation": {"ab_l1": error, "balanced_accuracy": accuracy},
            }
            for epoch, (error, accuracy) in enumerate(zip(errors, accuracies, strict=True), start=1)
        ]  # fmt: skip
        write_log(run_folder(study, "multi", plan.run_config("multi", 0)), log)
        error, accuracy = re.findall(r"<figure>.*?</figure>", str(panel((study,))))
        return error, accuracy

    return draw


def texts(chart: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart)


def test_numbers_are_written_as_in_the_report(charts):
    """A share in per cent with one place, CIELAB units with two: never 0.467 here and 46.7 % there."""
    error, accuracy = charts([14.0, 12.041], [0.25, 0.467])
    assert texts(error)[:2] == ["14.00", "12.04"]
    assert texts(accuracy)[:2] == ["46.7 %", "25.0 %"]
    assert "from 25.0 % to 46.7 %" in accuracy
    assert "0.467" not in accuracy


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
@pytest.mark.parametrize(
    "values",
    [[0.0], [1.0], [0.467], [0.467, 0.4671], [12.0, 12.000001], [12.004, 12.006], [0.1, 0.9], [1 / 3, 2 / 3]],
)
def test_the_ends_of_an_axis_are_different_numbers_around_all_values_and_exactly_where_they_are_written(
    metric, values
):
    low, high = metric.ends(values)
    assert low - 1e-6 / metric.scale <= min(values) <= max(values) <= high + 1e-6 / metric.scale
    assert metric.written(low) != metric.written(high)
    for end in (low, high):
        assert float(metric.written(end).removesuffix(metric.unit)) == pytest.approx(metric.scale * end)
    assert low >= 0
    assert high <= 1 or max(values) > 1  # never 100.1 %


def test_what_is_had_without_a_model_is_a_named_line_within_the_axis(charts):
    error, accuracy = charts([13.0, 12.0], [0.3, 0.4], BASELINES)
    assert "gray 14.26" in texts(error)
    assert texts(error)[:2] == ["14.26", "12.00"]
    assert "majority class 25.0 %" in texts(accuracy)
    assert texts(accuracy)[:2] == ["40.0 %", "25.0 %"]
    assert error.count('class="level"') == accuracy.count('class="level"') == 1


@pytest.mark.parametrize("baselines", [None, {}, {"gray": {"ab_l1": None}, "majority_class": {}}])
def test_a_baseline_that_has_no_score_has_no_line(charts, baselines):
    assert all('class="level"' not in chart for chart in charts([13.0], [0.3], baselines))


def test_the_only_epoch_lies_above_its_number_at_the_right(charts):
    for chart in charts([13.0], [0.3]):
        axis = re.search(r'class="axis" d="M(\d+) 8V\d+H(\d+)"', chart)
        (across,) = re.findall(r'<circle[^>]* cx="([\d.]+)"', chart)
        assert axis is not None
        assert float(axis[1]) + 100 < float(across)
        assert float(across) == pytest.approx(float(axis[2]), abs=10)
        assert texts(chart)[3] == "epoch 1"


def test_a_curve_begins_with_the_epochs_of_the_heads(charts):
    for chart in charts([14.0, 13.0, 12.0], [0.3, 0.4, 0.5], frozen=2):
        (path,) = re.findall(r'<path class="multi" d="M([^"]*)"', chart)
        assert len(path.split("L")) == 3
        assert "epoch 3" in texts(chart)
