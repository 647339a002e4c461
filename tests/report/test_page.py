"""The page is one file that loads nothing else, names what is missing and contains every number."""

import base64
import csv
import html
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock
from synthetic_study import METRICS, change, page_of, results_of, run_of, scores_of, write_study
from test_figures import STATES

from knowhue.errors import RunError
from knowhue.locks import LOCK, REPORT_LOCK
from knowhue.report.contrasts import WORDINGS
from knowhue.report.figures import FIGURES
from knowhue.report.integrity import warnings
from knowhue.report.page import write_report
from knowhue.report.reading import read_study
from knowhue.report.results import conclude
from knowhue.storage import read_json, write_json

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects what a page refers to and whether its elements nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in VOID else [tag]
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action", "poster", "data"}:
                self.links.append((tag, value or ""))
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: Path) -> tuple[str, Reader]:
    text, reader = page.read_text(encoding="utf-8"), Reader()
    reader.feed(text)
    assert not reader.open
    return text, reader


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_study(tmp_path_factory.mktemp("page") / "demo"))


@pytest.mark.parametrize("state", STATES)
def test_every_state_gives_a_page(tmp_path: Path, state: str):
    STATES[state](tmp_path)
    text, reader = read(write_report(tmp_path))
    assert all(link.startswith(("data:", "#")) for _, link in reader.links)
    assert len(reader.ids) == len(set(reader.ids))
    assert "None" not in re.sub(r"<[^>]*>|<style>.*?</style>", "", text).replace("None:", "")
    json.loads((tmp_path / "results.json").read_text())
    found = dict(re.findall(r'<figure id="figure-(\w+)"[^>]*>(.*?)</figure>', text, re.DOTALL))
    assert set(found) == {link.removeprefix("figure-") for link in reader.ids if link.startswith("figure-")}
    for name, shown in found.items():
        drawings = re.findall(r"<svg .*?</svg>", shown, re.DOTALL)
        assert len(drawings) == shown.count("<svg ") >= 1
        for drawing in drawings:
            ids = re.findall(r' id="([^"]+)"', drawing)
            assert all(name in each for each in ids)
            assert not re.search(r"url\((?!#)", drawing)
            assert set(re.findall(r'(?:href="|url\()#([^")]+)', drawing)) <= set(ids)
            assert not re.search(r"(?<![a-z0-9+/])nan(?![a-z0-9+/])", drawing.lower())


def test_a_terminal_is_told_each_question_and_its_answer(page: Path):
    answered = json.loads((page.parent / "results.json").read_text())["answers"]
    lines = conclude(read_study(page.parent)).lines
    assert lines[1::3] == [WORDINGS[question].question for question in answered]
    assert lines[2::3] == [f"  {sentence}" for sentence in answered.values()]
    assert set(lines[::3]) == {""}


def test_it_asks_nobody_for_anything(page: Path):
    text, _ = read(page)
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http://" not in without_namespaces
    assert "https://" not in without_namespaces
    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_every_figure_has_a_description_and_its_data(page: Path):
    text, _ = read(page)
    shown = re.findall(r'<figure id="figure-(\w+)"', text)
    assert len(shown) == text.count("<figcaption>") == 7
    assert text.count("Data (CSV)") == sum(FIGURES[name].rows is not None for name in shown) == 4
    assert text.count("<svg ") == text.count('<svg role="img" aria-label="')


def test_csv_links_hold_the_numbers(page: Path):
    text, _ = read(page)
    link = re.search(r'download="error.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', text)
    assert link
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(html.unescape(link[1])).decode())))
    log = read_study(page.parent).runs["multi"][0].log
    found = [float(row["ab_l1"]) for row in rows if row["arm"] == "multi"]
    assert found == [line["validation"]["ab_l1"] for line in log]


def test_results_beside_and_inside_the_page_are_the_same(page: Path):
    text, _ = read(page)
    link = re.search(
        r'download="results.json" href="data:application/json;charset=utf-8;base64,([^"]+)"', text
    )
    assert link
    inside = json.loads(base64.b64decode(html.unescape(link[1])))
    assert inside == read_json(page.parent / "results.json")
    assert inside == json.loads(json.dumps(results_of(read_study(page.parent))))


def test_the_answers_come_before_the_first_figure(page: Path):
    text = html.unescape(page.read_text(encoding="utf-8")).replace("\N{NO-BREAK SPACE}", " ")
    results = read_json(page.parent / "results.json")
    for sentence in results["answers"].values():
        assert 0 < text.index(sentence.partition(": w")[2]) < text.index("<figure")


def test_no_line_breaks_between_a_number_and_its_per_cent_sign(page: Path):
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert re.search("[0-9]\N{NO-BREAK SPACE}%", text)
    assert not re.search("[0-9] %", text)


def test_words_stand_at_the_left_of_their_column_and_numbers_at_the_right(eight_seeds: Path):
    rows = page_of(read_study(eight_seeds)).partition("Equal images</h3>")[2]
    question, metric, *numbers = re.findall(
        r"<t[hd] [^>]*>", rows.partition("</thead>")[2].partition("</tr>")[0]
    )
    assert question == '<th scope="row">'
    assert "text" in metric
    assert numbers
    assert not any("text" in each for each in numbers)


def test_names_are_escaped(tmp_path: Path):
    names = ["<b>fish</b>", 'a"b', "c&d", "</svg><script>", "e'f"]
    write_study(tmp_path, classes=names)
    change(tmp_path / "study.json", lambda study: study.update(name="<script>alert(1)</script>"))
    change(tmp_path / "metrics.json", lambda metrics: metrics["psnr"].update(title="<i>PSNR</i>"))
    text, _ = read(write_report(tmp_path))
    for dangerous in ("<script", "<b>fish", "<i>PSNR"):
        assert dangerous not in text
    assert "&lt;b&gt;fish&lt;/b&gt;" in text


@pytest.mark.usefixtures("without_figures")
def test_fid_is_said_to_be_absent_only_where_it_is(tmp_path: Path):
    write_study(tmp_path)
    words = "The Fréchet Inception Distance is not part of these scores."
    assert words in write_report(tmp_path).read_text(encoding="utf-8")
    write_json(tmp_path / "metrics.json", METRICS | {"fid": {"title": "FID", "unit": "", "better": "lower"}})
    assert words not in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_figures")
def test_warnings_are_joined_over_epochs_and_seeds(eight_seeds: Path, tmp_path: Path):
    found = warnings(read_study(eight_seeds))
    assert (
        "Multi-task, seeds 0 to 7",
        "epochs 8 to 10: discriminator saturated: it judges 99 % of true patches right",
    ) in found
    write_study(tmp_path, seeds=(0, 1))
    (run_of(tmp_path, "class", 1) / "status.json").unlink()
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Single-task classification, seed 1</b> – is not finished" in text


def test_metrics_of_a_missing_arm_keep_their_table(tmp_path: Path):
    write_study(tmp_path, arms=("multi",))
    study = read_study(tmp_path)
    assert list(scores_of(study, "class")) == ["Accuracy, % ↑", "Balanced accuracy, % ↑"]
    error = next(iter(scores_of(study, "colour").values()))
    assert (error["Single-task"], error["Difference"]) == ("–", "–")
    assert error["Multi-task"] != "–"


def test_a_page_of_validation_images_speaks_of_no_test_images(tmp_path: Path):
    text, _ = read(write_report(write_study(tmp_path / "demo", seeds=tuple(range(8)))))
    assert "exact sign-flip test over seeds, on these validation images" in text
    assert "test images" not in text


def test_settings_are_printed_as_yaml(page: Path):
    text = html.unescape(page.read_text(encoding="utf-8"))
    settings = dict(re.findall(r"<tr><td><code>([\w.]+)</code></td><td>(.*?)</td></tr>", text))
    assert settings["tasks.names"] == "[colour, class]"
    assert settings["images.path"] == "null"
    assert settings["supervision.resample"] == "false"


def test_writing_twice_gives_the_same_page(page: Path):
    before = page.read_bytes()
    assert write_report(page.parent).read_bytes() == before


def test_the_difference_is_paired_by_seed(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1), gain=0.5)
    for seed, value in ((0, 10.0), (1, 20.0)):
        change(
            run_of(tmp_path, "multi", seed) / "scores.json",
            lambda each, v=value: each["metrics"].update(psnr=v),
        )
        change(
            run_of(tmp_path, "colour", seed) / "scores.json",
            lambda each, v=value: each["metrics"].update(psnr=v - 1),
        )
    (run_of(tmp_path, "colour", 0) / "status.json").unlink()
    assert scores_of(read_study(tmp_path), "colour")["PSNR over RGB, dB ↑"]["Difference"] == "+1.00"


def test_sample_images_of_one_row_share_a_seed(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    (run_of(tmp_path, "colour", 0) / "status.json").unlink()
    study = read_study(tmp_path)
    shown = [study.shown(arm) for arm in study.runs]
    assert [run and run.seed for run in shown] == [1, 1, 1]


@pytest.mark.usefixtures("without_figures")
def test_is_made_while_its_study_runs_but_not_twice_at_once(one_seed, tmp_path, monkeypatch):
    folder = shutil.copytree(one_seed, tmp_path / "study")
    monkeypatch.setattr("knowhue.report.page.REPORT_S", 0.01)
    with FileLock(folder / LOCK):
        assert write_report(folder).exists()
    with FileLock(folder / REPORT_LOCK), pytest.raises(RunError, match="is in use"):
        write_report(folder)


def test_no_trace_is_left_where_there_is_no_study(tmp_path):
    with pytest.raises(RunError):
        write_report(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("without_figures")
def test_tables_of_dashes_only_are_left_out(tmp_path: Path):
    write_study(tmp_path, seeds=(0, 1))
    for log in tmp_path.rglob("log.jsonl"):
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        log.write_text("".join(json.dumps(line | {"train": {}}) + "\n" for line in lines))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "At equal training loss" not in text
    assert "Equal images" in text


def test_a_drawing_has_no_numbers_to_download(page: Path):
    text = page.read_text(encoding="utf-8")
    for name in ("setup", "samples", "per_class"):
        drawing = text[text.index(f'id="figure-{name}"') :]
        assert "Data (CSV)" not in drawing[: drawing.index("</figure>")]


def test_a_report_of_one_seed_is_read_in_five_minutes(page: Path):
    """The visible text: without folded sections (except their headings), styles and drawings."""
    shown = re.sub(r"<(style|svg|script)[ >].*?</\1>", " ", page.read_text(encoding="utf-8"), flags=re.S)
    while "</details>" in shown:  # from the innermost one
        shown = re.sub(
            r"<details(?:(?!<details).)*?(<summary>.*?</summary>)(?:(?!<details).)*?</details>",
            r"\1",
            shown,
            flags=re.S,
        )
    text = re.sub(r"<[^>]+>", " ", shown)
    assert 300 < len(text.split()) < 1000
    for title in ("Scores", "Warnings", "What was fixed beforehand", "How to reproduce it"):
        assert title in text


@pytest.mark.usefixtures("without_figures")
def test_warnings_are_counted_in_the_head_and_told_in_brief_the_most_serious_first(tmp_path: Path):
    write_study(
        tmp_path, seeds=(0, 1), arms=("class", "multi"), baselines={"majority_class": {"accuracy": 0.99}}
    )
    change(run_of(tmp_path, "multi", 1) / "status.json", lambda status: status.update(state="diverged"))
    found = warnings(read_study(tmp_path))
    assert found[0] == (
        "Multi-task, seed 1",
        "diverged: its losses or weights are no longer finite; its scores are not used.",
    )
    assert found[-1][0] == "The question about colouring"
    text = html.unescape(write_report(tmp_path).read_text(encoding="utf-8"))
    notice = re.sub(r"\s+", " ", text[text.index("Read with care") : text.index("<main>")])
    assert f"{len(found)} warnings</a> from these runs:</p>" in notice
    assert re.findall("<li>(.*?)</li>", notice) == [
        "Multi-task, seed 1 – diverged",
        "Accuracy, % – single-task 80.3 and multi-task 82.0 no better than a trivial baseline",
        "Multi-task, seeds 0, 1 – epochs 8 to 10: discriminator saturated",
        "The question about colouring – is not asked",
    ]


def test_calibration_is_no_contest_with_a_constant_guess(tmp_path: Path):
    write_study(tmp_path, baselines={"majority_class": {"ece": 0.0, "accuracy": 0.2}})
    write_json(tmp_path / "metrics.json", METRICS | {
        "ece": {"title": "Expected calibration error", "unit": "share", "better": "lower", "task": "class"},
    })  # fmt: skip
    for arm in ("class", "multi"):
        change(run_of(tmp_path, arm) / "scores.json", lambda each: each["metrics"].update(ece=0.03))
    assert "alibration" not in str(warnings(read_study(tmp_path)))


def test_no_metric_is_named_twice(tmp_path: Path):
    write_study(tmp_path)
    write_json(
        tmp_path / "metrics.json", METRICS | {"ciede2000": METRICS["ciede2000"] | {"unit": "CIEDE2000 units"}}
    )
    study = read_study(tmp_path)
    assert study.label("ciede2000") == "CIEDE2000"
    assert "CIEDE2000 ↓" in scores_of(study, "colour")


def test_whatever_can_be_cut_at_an_edge_shows_that_it_is(page: Path):
    css = re.search(r"<style>(.*?)</style>", page.read_text(encoding="utf-8"), re.S)
    assert css
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", re.sub(r"/\*.*?\*/", "", css[1]))
    cut = {name.strip() for names, rule in rules if "overflow-x: auto" in rule for name in names.split(",")}
    cued = {name.strip() for names, rule in rules if "var(--cut)" in rule for name in names.split(",")}
    assert cut - {"pre"} == cued == {".scroll"}  # `pre` wraps, drawings become smaller


@pytest.mark.usefixtures("without_figures")
def test_a_distance_says_why_it_has_no_interval(eight_seeds: Path):
    study = read_study(eight_seeds)
    entry = {"title": "FD lite0", "value": 39.4, "network": "n", "weights": "w", "resize": "r", "tool": "t",
             "images": 24}  # fmt: skip
    runs = {arm: {seed: replace(run, scores={**run.scores, "distribution": {"fd_lite0": entry}})
                  for seed, run in each.items()} for arm, each in study.runs.items()}  # fmt: skip
    text = page_of(replace(study, runs=runs))
    assert "A distance has no interval, because it is one number for a whole set of images" in text


def test_all_scores_are_there_as_one_tidy_table(page: Path):
    text, study = page.read_text(encoding="utf-8"), read_study(page.parent)
    link = re.search(r'download="scores.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', text)
    assert link
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(html.unescape(link[1])).decode())))
    values = {(row["arm"], row["seed"], row["metric"], row["class"]): float(row["value"]) for row in rows}
    assert len(values) == len(rows)
    assert values["multi", "0", "ab_l1", ""] == study.runs["multi"][0].metric("ab_l1")
    of_class = study.table.finished("multi", "accuracy", "jellyfish")
    assert values["multi", "0", "accuracy", "jellyfish"] == of_class[0]
    assert {row["arm"] for row in rows} == set(study.runs)


def test_a_figure_without_a_number_is_not_drawn(tmp_path: Path):
    write_study(tmp_path)
    for path in tmp_path.glob("*/seed-0-*"):
        (path / "status.json").unlink()
        (path / "log.jsonl").write_text("")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    shown = re.findall(r'<figure id="figure-(\w+)"', text)
    assert shown == ["samples", "setup"]
    assert "Training</h2>" not in text
