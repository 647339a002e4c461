"""The files of scores that a run leaves."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from knowhue.color import srgb_to_lab
from knowhue.config import Evaluation
from knowhue.data.loaders import ProcessShare
from knowhue.data.prepare import Prepared
from knowhue.errors import RunError
from knowhue.evaluation.aggregation import OF_SETS
from knowhue.evaluation.evaluate import predict_gray
from knowhue.evaluation.features import (
    NETWORKS,
    ImageNetwork,
    Opener,
    Unavailable,
    available_networks,
    open_networks,
)
from knowhue.metric_table import IMAGE_COLUMNS, RUN_COLUMNS, RUN_METRICS
from knowhue.report.contrasts import BY_CLASS
from knowhue.runs import write_status
from knowhue.storage import read_json
from knowhue.study import write_baselines
from knowhue.training.loop import validate
from knowhue.training.run import make_networks
from knowhue.training.scores import (
    FROM_ROW,
    inspect_run,
    sample_positions,
    score_baseline,
    to_bytes,
    write_samples,
    write_scores,
    write_truth,
)


@pytest.fixture
def scored(tiny, make_work):
    config = tiny()
    work = make_work(config, count=32)
    session = make_networks(work, config)
    scores = validate(work, config, session)
    (work.root / "run").mkdir(parents=True)
    write_scores(work.root / "run", work.prepared, scores)
    return work, session, scores


def test_scores_are_written_for_all_and_for_each_class(scored):
    work, _, scores = scored
    written = read_json(work.root / "run" / "scores.json")
    assert written["metrics"] == scores.metrics
    assert written["images"] == len(work.prepared.positions("validation")) == 8
    assert list(written["per_class"]) == list(work.prepared.classes)
    assert sum(map(sum, written["confusion"])) == 8


def test_rows_of_images_average_to_the_scores(scored):
    work, _, scores = scored
    with (work.root / "run" / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column, metric in (("ab_l1", "ab_l1"), ("correct", "accuracy"), ("cross_entropy", "cross_entropy")):
        assert np.mean([float(row[column]) for row in rows]) == pytest.approx(
            scores.metrics[metric], rel=1e-4
        )
    assert {row["label"] for row in rows} == set(work.prepared.classes)


def test_samples_are_the_first_of_each_class(scored):
    work, session, _ = scored
    write_samples(work, work.root / "run", session.model)
    (work.root / "images").mkdir()
    write_truth(work)
    samples, truth = (
        np.load(work.root / "run" / "samples.npz"),
        np.load(work.root / "images" / "samples.npz"),
    )
    positions = sample_positions(work.prepared)
    assert (work.prepared.split[positions] == "validation").all()
    assert work.prepared.label[positions].tolist() == [0, 0, 1, 1]
    for arrays in (samples, truth):
        assert np.array_equal(arrays["index"], positions)
    assert np.array_equal(truth["truth"], work.prepared.rgb[positions])
    # An untrained head answers gray.
    assert np.array_equal(samples["rgb"], truth["gray"])
    assert np.ptp(truth["gray"].astype(int), axis=-1).max() <= 1  # rounding
    assert samples["rgb"].dtype == np.uint8


@pytest.mark.parametrize(("classes", "step"), [(40, 1), (41, 2), (1000, 25)])
def test_of_many_classes_some_are_shown(classes, step):
    prepared = Prepared(
        classes=tuple(map(str, range(classes))),
        rgb=np.zeros((3 * classes, 1, 1, 3), np.uint8),
        label=np.repeat(np.arange(classes), 3),
        split=np.full(3 * classes, "validation"),
        paths=("",) * (3 * classes),
        fingerprint="",
    )
    shown = prepared.label[sample_positions(prepared)]
    assert shown.tolist() == [number for number in range(0, classes, step) for _ in range(2)]


def test_bytes_of_colours():
    rgb = (
        torch.tensor([float("nan"), -0.5, 0.5, 1.0, 2.0, 0.0019, 0.0021])
        .reshape(1, 1, 1, 7)
        .expand(1, 3, 1, 7)
    )
    assert to_bytes(rgb)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 1]


@pytest.mark.parametrize("test", [True, False])
def test_a_baseline_is_scored_on_the_images_of_the_epochs_too(tiny, make_work, test):
    config = tiny(evaluation__networks=())
    work = make_work(config, test=test)
    row = score_baseline(work, config.evaluation, predict_gray)
    of_epochs, of_report = (
        np.abs(srgb_to_lab(work.prepared.rgb[work.prepared.positions(split)] / 255)[..., 1:]).mean()
        for split in ("validation", work.prepared.reporting_split)
    )
    assert row["validation"]["ab_l1"] == pytest.approx(of_epochs, rel=1e-4)
    assert row["ab_l1"] == pytest.approx(of_report, rel=1e-4)
    assert (row["validation"]["ab_l1"] == row["ab_l1"]) == (not test)


def test_baselines_of_two_processes_are_those_of_one(tiny, make_work, monkeypatch):
    work = make_work(tiny(), count=32)
    write_baselines(work, Evaluation())
    whole = read_json(work.root / "baselines.json")
    monkeypatch.setattr(work.engine, "share", ProcessShare(0, 2))
    write_baselines(work, Evaluation())
    assert read_json(work.root / "baselines.json") == whole


def test_baselines_are_scored_again_where_another_network_is_opened(tiny, make_work, monkeypatch):
    """A file of weights that was replaced under its name, or a download that there was no network for."""
    work, name = make_work(tiny(), count=32), "lite0"
    found = []
    for opened in (
        Unavailable("not computed: there is no network"),
        *(ImageNetwork(lambda rgb, k=k: k * rgb.mean((2, 3)), {"weights": f"{k}"}) for k in (1, 2)),
    ):
        monkeypatch.setitem(NETWORKS, name, Opener(name, lambda *_, opened=opened: opened, "fid"))
        write_baselines(work, Evaluation())
        found.append(
            read_json(work.root / "baselines.json")["gray"].get("distribution", {}).get("fd_lite0", {})
        )
    assert not found[0]
    assert found[2]["value"] == pytest.approx(4 * found[1]["value"])
    assert (found[1]["weights"], found[2]["weights"]) == ("1", "2")


def test_weights_that_were_replaced_under_their_name_are_opened_again(tmp_path, monkeypatch):
    file, device = tmp_path / "weights.pth", torch.device("cpu")
    settings = Evaluation(networks=("inception",), inception_weights=str(file))

    def opened(path, _):
        return ImageNetwork(lambda rgb: rgb, {"weights": Path(path).read_text()})

    monkeypatch.setitem(NETWORKS, "inception", Opener("inception", opened, "fid"))
    assert isinstance(open_networks(settings, device)["inception"], Unavailable)
    for text in ("first", "second one"):
        file.write_text(text)
        assert available_networks(settings, device)["inception"].provenance == {"weights": text}


@pytest.mark.parametrize("test", [True, False])
def test_baselines_and_runs_report_how_many_images_are_scored(tiny, make_work, test):
    told, config = [], tiny()
    work = make_work(config, test=test, report=told.append)
    write_baselines(work, Evaluation())
    validate(work, config, make_networks(work, config), full=True, split=work.prepared.reporting_split)
    for stage in ("baselines", "evaluate"):
        events = [event for event in told if event["stage"] == stage]
        done, total = [event["done"] for event in events], events[0]["total"]
        assert (done, done[-1]) == (sorted(set(done)), total)
    assert told[-1]["total"] == len(work.prepared.positions(work.prepared.reporting_split))


@pytest.mark.parametrize("name", RUN_METRICS)
def test_each_metric_has_its_images_in_the_run_and_in_the_report(name):
    """Where a mean over the images were not known to be one, its interval would be over seeds alone."""
    metric = RUN_METRICS[name]
    assert RUN_COLUMNS[name] in (*FROM_ROW, "correct")
    assert (name in BY_CLASS) == (metric.over == "classes")
    assert (name in OF_SETS) == (metric.over == "set")
    if metric.over != "set":
        assert IMAGE_COLUMNS[BY_CLASS.get(name, name)] == RUN_COLUMNS[name]


def test_an_ended_run_whose_weights_the_disk_does_not_give_is_not_to_be_trained_again(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.touch()
    write_status(tmp_path, {"state": "finished"})
    assert inspect_run(tmp_path) == (True, [])
    weights.unlink()
    weights.symlink_to("/proc/self/mem")  # whose beginning is an input/output error
    with pytest.raises(RunError, match=r"Cannot read .*model\.safetensors`: Input/output error"):
        inspect_run(tmp_path)
