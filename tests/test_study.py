"""A whole tiny study: arms by seeds, resumed, extended, and protected from changed settings."""

import csv
import json
import re
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from knowhue.apps.program import main
from knowhue.config import EncoderSettings, Images
from knowhue.engines.executor import open_engine
from knowhue.errors import ConfigError, KnowhueError, RunError
from knowhue.metric_table import RUN_METRICS
from knowhue.models.encoder import build_encoder
from knowhue.plan import BASELINE_NAMES, make_plan, read_plan
from knowhue.report.figures import FIGURES
from knowhue.runs import read_config, read_log
from knowhue.storage import read_json, write_json
from knowhue.study import constant_colours, freeze, run_study
from knowhue.training import engine
from knowhue.training.run import evaluate_run
from small_encoder import SMALL_ENCODER, begin_worker

pytestmark = pytest.mark.usefixtures("without_figures")  # but that of `original`, and of no colour
PARTS = {"images": "0a1b2c3d", "encoder_weights": {}}
FOLDER = {"images__source": "folder", "images__drawn_count": Images().drawn_count}
SHORT = {
    "training__heads__epochs": 1, "training__finetune__epochs": 1,
    "evaluation__gradient_batches": 1, "evaluation__diagnose_every_steps": 25,
}  # fmt: skip
NO_TUNING = {"training__finetune__epochs": 0, "training__shift_px": 6}
"""No epoch, and the shift of images, which is then of no effect, as it is by default."""


def runs(root):
    """The runs, with the time at which each ended."""
    return {p.parent.relative_to(root): p.stat().st_mtime_ns for p in root.rglob("status.json")}


@pytest.fixture(scope="module")
def short(tiny, tmp_path_factory):
    """Settings of a short run that starts from a file of weights, whose digest is part of a study's hash."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = build_encoder(EncoderSettings(name=SMALL_ENCODER, weights="none")).body.state_dict()
    file = tmp_path_factory.mktemp("encoder") / "weights.pth"
    torch.save(weights, file)
    return SHORT | {"encoder__weights": str(file)}


@pytest.fixture(scope="module")
def config(tiny, short):
    return tiny(**short)


@pytest.fixture(scope="module")
def original(config, tmp_path_factory):
    """A finished study of three arms and one seed; tests get copies."""
    root = tmp_path_factory.mktemp("study")
    run_study(make_plan(config), root)
    return root


@pytest.fixture
def study(original, tmp_path):
    return shutil.copytree(original, tmp_path / "study")


def test_three_arms_come_from_two_heads(study):
    assert sorted(path.parts[:-1] for path in runs(study)) == sorted(
        [("class",), ("colour",), ("multi",), ("heads", "class"), ("heads", "colour")]
    )
    assert all(read_json(path)["state"] == "finished" for path in study.rglob("status.json"))
    assert (study / "report.html").stat().st_size > 10_000


def test_results_have_every_arm_and_metric(study):
    results = read_json(study / "results.json")
    assert {"colour", "class"} <= results["answers"].keys()
    scores = {
        arm: read_json(next((study / arm).glob("*/scores.json"))) for arm in ("class", "colour", "multi")
    }
    assert scores["multi"]["metrics"].keys() == RUN_METRICS.keys() - {"lpips_alex"}  # was not requested
    for arm in ("class", "colour"):
        assert {RUN_METRICS[name].task for name in scores[arm]["metrics"]} == {arm}
    assert {scored["images"] for scored in scores.values()} == {5}


def test_rows_of_images_are_those_of_the_validation_part(study):
    with (study / "images" / "manifest.csv").open(newline="") as file:
        validation = [
            row["path"]
            for row in csv.DictReader(file)
            if row["split"] == "validation" and row["status"] == "kept"
        ]
    for arm in ("class", "colour", "multi"):
        with next((study / arm).glob("*/per_image.csv")).open(newline="") as file:
            assert [row["path"] for row in csv.DictReader(file)] == validation


def test_baselines_are_scored_as_the_models_are(study):
    baselines = read_json(study / "baselines.json")
    assert baselines["gray"]["chroma_ratio"] == 0
    assert 0 < baselines["median_colour"]["ab_l1"] <= 1.05 * baselines["mean_colour"]["ab_l1"]
    assert set(baselines) == {*BASELINE_NAMES["colour"], *BASELINE_NAMES["class"], "real"}
    assert min(baselines[name]["ciede2000"] for name in ("gray", "mean_colour")) > 0
    assert baselines["majority_class"]["balanced_accuracy"] == pytest.approx(0.2)
    assert baselines["majority_class"]["cross_entropy"] == pytest.approx(np.log(5), abs=0.2)
    assert baselines["majority_class"]["ece"] < 0.2
    assert read_json(study / "metrics.json").keys() == RUN_METRICS.keys()


def test_second_call_trains_nothing(study, config):
    before, events = runs(study), []
    run_study(make_plan(config), study, report=events.append)
    assert runs(study) == before
    assert not {event["stage"] for event in events} & {"run", "train", "features", "gate", "evaluate"}


@pytest.mark.parametrize("workers", [1, 2])
def test_heads_that_were_deleted_are_trained_again_only_for_who_needs_them(
    study, config, workers, monkeypatch
):
    monkeypatch.setattr("knowhue.engines.executor._start_worker", begin_worker)
    before = runs(study)
    shutil.rmtree(study / "heads")
    run_study(make_plan(config), study, open_engine(workers=workers))
    assert runs(study) == {run: time for run, time in before.items() if run.parts[0] != "heads"}
    if workers == 1:
        next((study / "colour").glob("*/status.json")).unlink()
        run_study(make_plan(config), study)
        assert {run.parts[:2] for run in runs(study) if run.parts[0] == "heads"} == {("heads", "colour")}


def test_lost_run_alone_is_trained_again(study, config):
    before = runs(study)
    (folder,) = (study / "class").iterdir()
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "status.json").unlink()
    run_study(make_plan(config), study)
    changed = [path for path, time in runs(study).items() if before[path] != time]
    assert changed == [folder.relative_to(study)]
    assert (folder / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_run_that_lies_in_the_place_of_another_is_refused(study, config, has_ended):
    (multi,), (colour,) = (list((study / arm).iterdir()) for arm in ("multi", "colour"))
    shutil.copytree(colour, multi, dirs_exist_ok=True)
    if not has_ended:  # the study would go on with it
        (multi / "status.json").unlink()
    with pytest.raises(RunError, match=rf"`{multi}` holds another run than it is named after"):
        run_study(make_plan(config), study)


def test_changing_the_frozen_plan_is_refused_with_the_reason(study, config):
    before = (study / "study.json").read_bytes()
    for plan, key in (
        (make_plan(config, seeds=[0, 1]), "seeds"),
        (make_plan(config, arms=["colour", "multi"]), "arms.class, questions.class"),
        (make_plan(config).model_copy(update={"alpha": 0.1}), "alpha"),
    ):
        with pytest.raises(RunError, match=rf"frozen on .*, before its first run; now {key} would differ"):
            run_study(plan, study)
    assert (study / "study.json").read_bytes() == before


def test_the_command_that_the_refusal_of_another_plan_names_goes_on(study, config, monkeypatch):
    before, described = runs(study), read_json(study / "study.json")
    with pytest.raises(RunError, match=r"or resume: `knowhue .*`\.$") as refused:
        run_study(make_plan(config, seeds=[0, 1]), study)
    monkeypatch.setattr("sys.argv", shlex.split(str(refused.value).split("`")[-2]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert runs(study) == before
    assert read_json(study / "study.json")["hash"] == described["hash"]


def test_a_new_study_replaces_nobodys_files_and_leaves_those_beside(config, tmp_path):
    (tmp_path / "results.json").write_text("of others")
    with pytest.raises(RunError, match=r"should be free for a study\. Found results\.json\."):
        run_study(make_plan(config), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_plan_that_no_run_has_started_from_may_change(config, tmp_path):
    freeze(make_plan(config), tmp_path, {}, PARTS)
    freeze(make_plan(config, seeds=[0, 1]), tmp_path, {}, PARTS)
    assert read_plan(tmp_path).frozen == make_plan(config, seeds=[0, 1]).frozen


def test_a_command_that_goes_on_leaves_the_record_of_the_one_that_froze_the_plan(config, tmp_path):
    asked = {"name": "asked", "command": "knowhue study --preset demo", "preset": "demo"}
    freeze(make_plan(config), tmp_path, asked, PARTS)
    frozen = read_json(tmp_path / "study.json")
    freeze(
        make_plan(config), tmp_path, {"name": "moved", "command": "knowhue study --plan study.json"}, PARTS
    )
    assert read_json(tmp_path / "study.json") == frozen | {"name": "moved"}
    freeze(make_plan(config, seeds=[0, 1]), tmp_path, {"command": "knowhue study --seeds 2"}, PARTS)
    freeze(make_plan(config, seeds=[0, 1]), tmp_path, asked, PARTS)  # the same settings, found in another way
    replaced = read_json(tmp_path / "study.json")
    assert (replaced["command"], replaced.get("preset")) == ("knowhue study --seeds 2", None)


def test_a_plan_that_is_replaced_before_anything_was_trained_is_told(config, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("knowhue.study.run_cells", stop)
    told = []
    for seeds in ([0], [0], [0, 1]):
        events = []
        with pytest.raises(KeyboardInterrupt):
            run_study(make_plan(config, seeds=seeds), tmp_path, report=events.append)
        told.append([event["text"] for event in events if "replaced" in event.get("text", "")])
    replaced = f"{tmp_path / 'study.json'}: another plan, of which nothing was trained, is replaced"
    assert told == [[], [], [replaced]]


@pytest.mark.parametrize("part", ["images", "encoder_weights"])
def test_other_weights_or_images_under_the_same_name_are_refused(study, config, part):
    parts = read_json(study / "study.json")["parts"]
    assert len(parts["encoder_weights"][f"{SMALL_ENCODER} {config.encoder.weights}"]) == 64
    with pytest.raises(
        RunError, match=r"frozen on .* with other .* than are there now.* or name another folder\.$"
    ):
        freeze(make_plan(config), study, {}, parts | {part: "other"})


class Cluster:
    """An executor that must receive no job."""

    name, threads, is_elsewhere = "slurm", 1, True

    def leftover_jobs(self):
        return []

    def execute(self, jobs, watch=lambda: None):
        pytest.fail(f"{jobs[0].id} was queued")


def test_what_will_be_refused_is_refused_before_a_cluster_is_given_a_job(study, tiny, short, config):
    with pytest.raises(RunError, match=r"now config\.training\.batch_size would differ"):
        run_study(
            make_plan(tiny(**short, training__batch_size=2, training__precision="auto")), study, Cluster()
        )
    frozen = read_json(study / "study.json")
    write_json(study / "study.json", frozen | {"parts": frozen["parts"] | {"images": "other"}})
    with pytest.raises(RunError, match=r"with other images than are there now"):
        run_study(make_plan(config), study, Cluster())


def test_a_precision_that_is_not_known_yet_is_no_other_plan(study, tiny, short):
    with pytest.raises(pytest.fail.Exception, match="arithmetic was queued"):
        run_study(make_plan(tiny(**short, training__precision="auto")), study, Cluster())


def test_the_hash_is_a_whole_sha256_of_what_stands_beside_it(study):
    frozen = read_json(study / "study.json")
    assert frozen["hash"] == read_plan(study).hash(frozen["parts"])
    assert frozen["hash"] == read_json(study / "results.json")["study"]["hash"]
    assert len(frozen["hash"]) == 64
    assert frozen["hash"] in (study / "report.html").read_text()


def test_the_disk_to_use_may_change_as_the_error_says(study, tiny, short):
    """If the disk has become too small, the remedy in the error helps."""
    before = runs(study)
    run_study(make_plan(tiny(**short, training__cache_gib=0)), study)
    assert runs(study) == before


def test_a_machine_that_resolves_another_precision_is_refused_with_the_remedy(
    tiny, short, tmp_path, monkeypatch
):
    auto = make_plan(tiny(**short | NO_TUNING, training__precision="auto"), ["class"])
    monkeypatch.setattr(
        engine, "resolve_precision", lambda wanted, _: wanted if wanted != "auto" else "float32"
    )
    run_study(auto, tmp_path)
    assert read_plan(tmp_path).config.training.precision == "float32"
    assert read_config(next((tmp_path / "class").iterdir())).training.precision == "float32"
    run_study(auto, tmp_path)
    monkeypatch.setattr(
        engine, "resolve_precision", lambda wanted, _: wanted if wanted != "auto" else "bfloat16"
    )
    with pytest.raises(
        RunError, match=r"config\.training\.precision would differ.*--set training\.precision=float32$"
    ):
        run_study(auto, tmp_path)
    run_study(auto.computed_in("float32"), tmp_path)


def test_a_study_of_another_version_is_refused_in_one_line(study, config):
    described = read_json(study / "study.json")
    del described["schema"]
    write_json(study / "study.json", described)
    with pytest.raises(RunError, match=r"study\.json: written by another version"):
        run_study(make_plan(config), study)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"training__batch_size": 2}, "config.training.batch_size"),
        (
            {"images__drawn_seed": 1, "class__label_smoothing": 0.1},
            "config.class.label_smoothing, config.images.drawn_seed",
        ),
        ({"evaluation__every_epochs": 2}, "config.evaluation.every_epochs"),
    ],
)
def test_other_settings_are_refused_by_name(study, tiny, short, changes, keys):
    before = (study / "study.json").read_bytes()
    with pytest.raises(RunError, match=rf"now {keys} would differ.* Name another folder, or resume"):
        run_study(make_plan(tiny(**short, **changes)), study)
    assert (study / "study.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arms": ["both"]}, "`arms` should be one of .*Found `arms = both`"),
        ({"arms": []}, "`arms` should be some of"),
        ({"seeds": [1, 1]}, "`seeds` should be different whole numbers"),
        ({"seeds": []}, "`seeds` should be one whole number at least"),
    ],
)
def test_arms_and_seeds_are_checked_first(config, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(config, **arguments)


def test_evaluating_again_gives_the_same_scores(study):
    (folder,) = (study / "multi").iterdir()
    before = [(folder / name).read_bytes() for name in ("scores.json", "per_image.csv")]
    evaluate_run(folder)
    assert [(folder / name).read_bytes() for name in ("scores.json", "per_image.csv")] == before


def test_median_colour_is_the_best_constant_by_l1(make_prepared):
    from skimage.color import rgb2lab

    prepared = make_prepared()
    chroma = rgb2lab(prepared.rgb[prepared.positions("train")])[..., 1:].reshape(-1, 2)
    found = constant_colours(prepared, batch_size=3)[1].numpy()
    np.testing.assert_allclose(found, np.median(chroma, axis=0), atol=0.2)
    error = np.abs(chroma - found).mean()
    assert all(
        error <= np.abs(chroma - found - np.array(move)).mean() + 1e-3
        for move in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )


def test_mean_colour_is_of_the_training_images(make_prepared):
    from skimage.color import rgb2lab

    prepared = make_prepared()
    expected = rgb2lab(prepared.rgb[prepared.split == "train"])[..., 1:].mean((0, 1, 2))
    np.testing.assert_allclose(constant_colours(prepared, batch_size=5)[0], expected, atol=1e-3)


@pytest.mark.parametrize("phase", ["heads", "finetune"])
def test_a_phase_may_have_no_epochs(tiny, tmp_path, phase):
    none = NO_TUNING if phase == "finetune" else {"training__heads__epochs": 0}
    config = tiny(**none, encoder__weights="none")
    run_study(make_plan(config, ["class"]), tmp_path)
    (folder,) = (tmp_path / "class").iterdir()
    other = "heads" if phase == "finetune" else "finetune"
    assert [entry["phase"] for entry in read_log(folder)] == [other] * 2


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"encoder__weights": "/nowhere.pth"}, {"encoder__weights": "none"}),
        ({"images__min_per_class": 100}, {"images__min_per_class": 1}),
    ],
)
def test_mended_settings_are_taken_where_nothing_was_trained(tiny, tmp_path, wrong, right):
    short = {"training__heads__epochs": 1, **NO_TUNING}
    with pytest.raises(KnowhueError, match=r"should be|needs at least"):
        run_study(make_plan(tiny(**short, **wrong), ["class"]), tmp_path)
    run_study(make_plan(tiny(**short, **right), ["class"]), tmp_path)


def test_settings_of_images_are_checked_before_weights(tiny, tmp_path):
    config = tiny(images__drawn_count=3, encoder__weights="/nowhere.pth")
    with pytest.raises(KnowhueError, match=r"`images\.drawn_count` should be at least 10"):
        run_study(make_plan(config, ["class"]), tmp_path)


def test_images_that_changed_under_a_finished_study_are_noticed(tiny, make_folder, tmp_path):
    photos = make_folder({"cat": 5, "dog": 5})
    settings = {**FOLDER, "images__path": str(photos), "images__size_px": 16}
    config = tiny(
        **settings, encoder__weights="none", training__heads__epochs=1, training__finetune__epochs=1
    )
    run_study(make_plan(config, ["class"]), tmp_path / "study")
    before = runs(tmp_path / "study")
    noise = np.random.default_rng(9).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "cat" / "another.png")
    try:
        run_study(make_plan(config, ["class"]), tmp_path / "study")
    except RunError:
        return
    assert runs(tmp_path / "study") != before


def test_a_set_without_any_colour_ends_in_numbers_and_words(tiny, short, tmp_path, monkeypatch):
    monkeypatch.setattr("knowhue.report.page.FIGURES", FIGURES)  # all that is drawn, too
    generator = np.random.default_rng(0)
    for k, name in enumerate(("coral", "shark")):
        (tmp_path / "gray" / name).mkdir(parents=True)
        for number in range(9):
            noise = generator.integers(40 * k, 160 + 40 * k, (48, 48), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "gray" / name / f"{number}.png")
    config = tiny(**short, **FOLDER, images__path=str(tmp_path / "gray"), images__min_colourfulness=0)
    run_study(make_plan(config, ("colour", "multi")), tmp_path / "out")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    written = list((tmp_path / "out").rglob("*.json"))
    assert (tmp_path / "out" / "results.json") in written
    for path in written:
        json.loads(path.read_text(), parse_constant=refuse)
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"[>\s](nan|inf|infinity)[<\s]", page, re.IGNORECASE)


def test_an_engine_does_not_go_with_processes_that_torch_started(config, tmp_path, monkeypatch):
    monkeypatch.setattr("knowhue.study.Engine", lambda _: SimpleNamespace(share=SimpleNamespace(world=2)))
    with pytest.raises(
        ConfigError, match=r"`--engine local` cannot be combined with torch\.distributed\.run"
    ):
        run_study(make_plan(config), tmp_path / "study", open_engine(workers=3))
    assert not (tmp_path / "study").exists()
