"""What trained the encoder is shown by arm and moment, and a GAN that is as good as off is warned of."""

from pathlib import Path

import pytest
from synthetic_study import put, run_of, table_text, write_study

from knowhue.report.diagnostics import gradient_table, gradient_warnings
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.storage import read_json


def shares(pixel: float, adversarial: float, class_: float | None = None):
    norms = ({} if class_ is None else {"class": class_}) | {"pixel": pixel, "adversarial": adversarial}
    return {"batches": 4, "norms": norms, "shares": {k: v / sum(norms.values()) for k, v in norms.items()}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_study(tmp_path, seeds=(0, 1))
    for seed, adversarial in ((0, 0.04), (1, 0.06)):
        found = {"fork": shares(0.95, adversarial, 1.0), "end": shares(0.5, 0.5, 1.0)}
        put(run_of(tmp_path, "multi", seed) / "gradient_shares.json", found)
    return tmp_path


def test_means_over_seeds_by_arm_and_moment(folder: Path):
    table = gradient_table(read_study(folder))
    assert list(table) == ["multi"]
    assert table["multi"]["fork"]["norms"] == pytest.approx(
        {"class": 1.0, "pixel": 0.95, "adversarial": 0.05}
    )
    assert table["multi"]["fork"]["adversarial_of_colour"] == pytest.approx(0.05)
    assert table["multi"]["end"]["shares"] == pytest.approx(
        {"class": 0.5, "pixel": 0.25, "adversarial": 0.25}
    )
    assert table["multi"]["end"]["seeds"] == 2


@pytest.mark.usefixtures("without_figures")
def test_the_page_and_the_results_show_them(folder: Path):
    page = write_report(folder).read_text()
    assert "What trained the encoder" in page
    rows = table_text(read_study(folder), "gradients")
    assert rows[1] == ["Multi-task", "at the fork", "50.0", "47.5", "2.5", "5.0", 2]
    assert read_json(folder / "results.json")["gradients"]["multi"]["end"]["adversarial_of_colour"] == 0.5


def test_a_gan_that_is_as_good_as_off_is_warned_of(folder: Path):
    ((who, what),) = gradient_warnings(read_study(folder))
    assert who == "Multi-task"
    assert "5.0 % at the fork of the colour gradient" in what
    assert "below 10 %: the GAN is as good as off" in what


def test_a_gan_that_pulls_is_not_warned_of(folder: Path):
    for seed in (0, 1):
        found = {"fork": shares(0.8, 0.2, 1.0), "end": shares(0.8, 0.2, 1.0)}
        put(run_of(folder, "multi", seed) / "gradient_shares.json", found)
    assert gradient_warnings(read_study(folder)) == []


def test_plain_regression_has_no_adversarial_share(folder: Path):
    for seed in (0, 1):
        alone = {"batches": 4, "norms": {"pixel": 1.0}, "shares": {"pixel": 1.0}}
        put(run_of(folder, "colour", seed) / "gradient_shares.json", {"fork": alone, "end": alone})
    rows = table_text(read_study(folder), "gradients")
    assert ["Single-task colouring", "at the end", "–", "100.0", "–", "–", 2] in rows


def test_a_study_without_them_shows_no_table(one_seed: Path):
    assert gradient_table(read_study(one_seed)) == {}
    assert "What trained the encoder" not in write_report(one_seed).read_text()


def test_all_arms_whose_gan_is_as_good_as_off_are_named_in_one_warning(folder: Path):
    for seed in (0, 1):
        low = shares(0.97, 0.03, 0.0)
        put(run_of(folder, "colour", seed) / "gradient_shares.json", {"fork": low, "end": low})
    ((who, what),) = gradient_warnings(read_study(folder))
    assert who == "Single-task colouring, Multi-task"
    assert "3.0 to 5.0 % at the fork and 3.0 % at the end of the colour gradient" in what
