"""Figures have data in every state of a study, and become SVG that fits into the page."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from synthetic_study import change, run_of, write_study

from knowhue.errors import ConfigError
from knowhue.report.figures import FIGURES, write_figures
from knowhue.report.levels import confusion_rows, curve_rows
from knowhue.report.page import SECTIONS
from knowhue.report.reading import read_study
from knowhue.report.study import Study
from knowhue.report.style import to_svg
from knowhue.runs import STUDY_SCHEMA
from knowhue.storage import write_json


def _nothing(folder: Path) -> None:
    write_study(folder / "whole")
    write_json(
        folder / "study.json",
        {**STUDY_SCHEMA, "seeds": [0], "arms": {"class": {}, "colour": {}, "multi": {}}, "config": {}},
    )


def _nulls(folder: Path) -> None:
    write_study(folder, seeds=(0, 1))
    run = run_of(folder, "multi")
    lines = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(re.sub(r'("(?:ab_l1|accuracy|generator)": )[-0-9.e]+', r"\1null", lines))

    def blank(scores):
        scores["metrics"] = dict.fromkeys(scores["metrics"])
        scores["per_class"]["jellyfish"] = {"images": 0, "accuracy": None, "ab_l1": None}

    change(run / "scores.json", blank)


def _unfinished(folder: Path) -> None:
    write_study(folder, seeds=(0, 1))
    run = run_of(folder, "colour")
    for name in ("scores.json", "per_image.csv", "samples.npz", "status.json"):
        (run / name).unlink()
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines[:3]))


STATES = {
    "one seed": write_study,
    "eight seeds": lambda folder: write_study(folder, seeds=tuple(range(8))),
    "no class arm": lambda folder: write_study(folder, arms=("colour", "multi")),
    "no colour arm": lambda folder: write_study(folder, arms=("class", "multi")),
    "only colour": lambda folder: write_study(folder, arms=("colour",)),
    "nulls": _nulls,
    "unfinished": _unfinished,
    "nothing yet": _nothing,
    "many classes": lambda folder: write_study(folder, classes=[f"class_{number}" for number in range(14)]),
}


def draw(name: str, study: Study) -> Figure:
    """The only or first drawing of a figure."""
    return next(iter(FIGURES[name].draw(study).values()))


@pytest.fixture(scope="module", params=STATES)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("state")
    STATES[request.param](folder)
    return read_study(folder)


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.rows])
def test_every_figure_that_is_drawn_has_its_numbers(study, name: str):
    rows = FIGURES[name].rows(study)
    assert rows or not FIGURES[name].draw(study)
    assert all({"arm", "seed"} & row.keys() for row in rows)


def test_a_whole_study_lacks_no_figure_but_those_of_more_seeds_arms_and_files(one_seed: Path):
    study = read_study(one_seed)
    missing = {name for name, figure in FIGURES.items() if not figure.draw(study)}
    assert missing == {"transfer", "forest", "label_fraction", "reliability", "extremes"}


def test_every_figure_stands_once_on_the_page():
    assert [name for section in SECTIONS for name in section.figures] == list(FIGURES)


def test_a_description_is_text_of_the_page(one_seed: Path):
    text = to_svg(draw("setup", read_study(one_seed)), "setup", "A <figure> & more")
    assert text.startswith('<svg role="img" aria-label="A &lt;figure&gt; &amp; more"')


def test_colours_follow_the_page_and_text_stays_text(one_seed: Path):
    text = to_svg(draw("accuracy", read_study(one_seed)), "accuracy", "")
    assert "var(--single" in text
    assert "var(--multi" in text
    assert ">everything trains</text>" in text
    assert "DejaVu" not in text
    fixed = set(re.findall(r"(?<!, )#[0-9a-f]{6}", text))
    assert not fixed, f"colours that do not follow the page: {fixed}"


def test_figures_are_pure(one_seed: Path):
    study = read_study(one_seed)
    for figure in FIGURES.values():
        first, second = figure.draw(study), figure.draw(study)
        assert [to_svg(each, name, "") for name, each in first.items()] == [
            to_svg(each, name, "") for name, each in second.items()
        ]


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_numbers_of_losses_have_the_pixel_loss_that_was_logged(one_seed: Path, loss: str):
    study = read_study(one_seed)
    for run in (run for by_seed in study.runs.values() for run in by_seed.values()):
        for entry in run.log:
            if "l1" in entry.get("train", {}):
                entry["train"][loss] = entry["train"].pop("l1")
    names = {"generator", "discriminator", "discriminator_real", "discriminator_fake"}
    assert {name for row in curve_rows(study, "losses") for name in row} >= {loss, *names}
    assert "validation" not in str(curve_rows(study, "losses"))


def test_the_numbers_of_curves_are_the_log(one_seed: Path):
    study = read_study(one_seed)
    rows = curve_rows(study, "error")
    assert list(rows[0]) == ["arm", "seed", "epoch", "phase", "ab_l1", "adversarial"]
    assert len(rows) == 2 * 10
    assert rows[0]["ab_l1"] == study.runs["colour"][0].log[0]["validation"]["ab_l1"]


def test_confusion_adds_up(eight_seeds: Path):
    rows = confusion_rows(read_study(eight_seeds))
    assert sum(row["images"] for row in rows) == 2 * 8 * 150


def test_samples_are_matched_by_image_not_by_place(one_seed: Path):
    study = read_study(one_seed)
    run = study.runs["multi"][0]
    turned = dataclasses.replace(run, samples={name: values[::-1] for name, values in run.samples.items()})
    other = dataclasses.replace(study, runs=dict(study.runs) | {"multi": {0: turned}})
    assert to_svg(draw("samples", other), "s", "") == to_svg(draw("samples", study), "s", "")


def test_an_unfinished_seed_does_not_cut_the_mean_short(tmp_path: Path):
    _unfinished(tmp_path)
    lines = draw("error", read_study(tmp_path)).axes[0].lines
    assert max(np.max(line.get_xdata()) for line in lines if line.get_linewidth() > 1.5) == 10


def test_figures_are_replaced_only_if_asked(one_seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in set(FIGURES) - {"forest", "losses"}:
        monkeypatch.delitem(FIGURES, name)
    precious = tmp_path / "talk" / "losses_generator.png"
    precious.parent.mkdir()
    precious.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"losses_generator.png already exists.*--figures.*--overwrite"):
        write_figures(one_seed, precious.parent)
    assert [path.name for path in precious.parent.iterdir()] == ["losses_generator.png"]
    assert precious.read_bytes() == b"precious"
    write_figures(one_seed, precious.parent, overwrite=True)
    assert {path.name for path in precious.parent.iterdir()} == {
        "losses_generator.png",
        "losses_discriminator.png",
        "figures.md",
    }
    with Image.open(precious) as image:
        assert (image.format, image.getpixel((0, 0))) == ("PNG", (255, 255, 255, 255))


def test_only_figures_that_show_something_are_written_with_a_list_of_what(
    one_seed: Path, monkeypatch, tmp_path: Path
):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    names = {path.stem for path in write_figures(one_seed, tmp_path)}
    assert not names & {"label_fraction", "forest", "transfer_colour", "transfer_class"}
    said = (tmp_path / "figures.md").read_text(encoding="utf-8")
    assert {line.split("`")[1] for line in said.splitlines()} == {f"{name}.png" for name in names}
    assert "**Accuracy.**" in said


def test_names_of_curves_and_baselines_never_overprint(tmp_path: Path):
    """With two epochs, the last point is well inside the panel, and the baselines are close together."""
    levels = {"mean_colour": 12.3, "median_colour": 12.2, "gray": 12.31}
    baselines = {name: {"ab_l1": 0.0, "validation": {"ab_l1": level}} for name, level in levels.items()}
    write_study(tmp_path, baselines=baselines)
    for log in tmp_path.rglob("log.jsonl"):
        lines = log.read_text().splitlines()
        log.write_text(
            "".join(f"{line}\n" for line in (lines[0], lines[-1].replace('"epoch": 10', '"epoch": 2')))
        )
    figure = draw("error", read_study(tmp_path))
    figure.canvas.draw()
    names = ("Multi-task", "Single-task", *(f"{name} " for name in ("mean colour", "median colour", "gray")))
    boxes = [text.get_window_extent() for text in figure.findobj(Text) if text.get_text().startswith(names)]
    assert len(boxes) == 5
    for place, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[place + 1 :])


def test_the_caption_of_all_arms_tells_the_oracle_from_those_that_train_both_tasks(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1), arms=("class", "colour", "multi", "oracle"))
    forest = FIGURES["forest"]
    asked = read_study(tmp_path)
    assert forest.caption_of(asked).startswith(
        "Every arm that trains both tasks, and the oracle, a colorizer that is given the true class"
    )
    write_study(tmp_path / "without", seeds=(0, 1))
    assert "oracle" not in forest.caption_of(read_study(tmp_path / "without"))


def test_one_epoch_is_no_epochs(tmp_path: Path):
    write_study(tmp_path)
    change(tmp_path / "study.json", lambda each: each["config"]["training"]["heads"].update(epochs=1))
    study = read_study(tmp_path)
    assert "For 1 epoch only the heads train" in FIGURES["setup"].caption_of(study)
    assert "frozen 1 epoch, then tuned" in " ".join(
        text.get_text() for text in draw("setup", study).findobj(Text)
    )


def test_a_class_of_any_name_is_drawn(tmp_path: Path):
    write_study(
        tmp_path / "run", seeds=(0, 1), classes=[r"$\bad$", "x" * 200, "a few words that are many", "coral"]
    )
    study = read_study(tmp_path / "run")
    drawn = {name: each for figure in FIGURES.values() for name, each in figure.draw(study).items()}
    pages = {name: to_svg(each, name, "") for name, each in drawn.items()}  # a warning would be an error
    assert all(r"$\bad$" in pages[name] for name in ("confusion_multi", "per_class_class", "samples"))
    assert not any("x" * 24 in page for page in pages.values())
    write_figures(tmp_path / "run", tmp_path / "figures", overwrite=False)


def test_names_below_a_confusion_matrix_are_upright_where_they_fit(tmp_path: Path):
    def turned(*classes: str) -> set[float]:
        folder = tmp_path / classes[0]
        write_study(folder, classes=list(classes))
        ax = FIGURES["confusion"].draw(read_study(folder))["confusion_multi"].axes[0]
        return {label.get_rotation() for label in ax.get_xticklabels()}

    assert turned("coral reef", "sea lion") == {0.0}
    assert turned("coral", "bicycle-and-motorcycle") == {40.0}
    assert turned("reef", "one word and another") == {40.0}
    assert turned("reef", "_") == {0.0}


def test_many_classes_make_no_large_page(tmp_path: Path):
    write_study(tmp_path, classes=[f"class_{number}" for number in range(100)] + ["_", "__"])
    study = read_study(tmp_path)
    for name, drawing in FIGURES["confusion"].draw(study).items():
        ax = drawing.axes[0]
        assert not [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        alpha = ax.images[0].get_array()[..., 3]
        counts = [row["images"] for row in confusion_rows(study) if name.endswith(row["arm"])]
        assert all(counts)  # of a million cells those of 0 would be 90 MB of a page
        if counts:
            assert (alpha > 0.06).sum() == np.count_nonzero(counts)
    assert FIGURES["confusion"].caption_of(study).endswith(" The data lists only numbers above 0.")
    named = FIGURES["per_class"].draw(study)["per_class_colour"].axes[0].get_yticklabels()
    assert len(named) == 51
    assert named[1].get_text() == "class 2"
