"""A comparison of methods: plan, equal images, equal wall-clock time and report."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowhue.apps.program import main
from knowhue.config import Config
from knowhue.errors import ConfigError, RunError
from knowhue.plan import make_comparison, read_plan, read_planned
from knowhue.presets import ALL_METHODS, METHODS, PAPER_METHODS, edit
from knowhue.runs import run_folder
from knowhue.storage import read_json, write_json
from knowhue.study import epochs_within, equal_wall_clock, run_study

COMPARED = ("l1", "gan", "palette-ab")
SECONDS = st.floats(0.1, 100.0)


def test_every_method_is_trained_for_the_same_images():
    plan = make_comparison(Config(), tuple(ALL_METHODS))
    totals = {name: sum(plan.epochs(name)) for name in ALL_METHODS}
    assert set(totals.values()) == {30 + 15}
    assert {name for name in ALL_METHODS if plan.epochs(name)[0] == 0} == {
        name for name in ALL_METHODS if name.startswith(("pix2pix", "palette"))
    }


@pytest.mark.parametrize("name", ALL_METHODS)
def test_a_method_is_its_edits_of_the_shared_settings(name):
    plan = make_comparison(edit(Config(), {"images": {"size_px": 128}}), tuple(ALL_METHODS))
    config = plan.run_config(name, 5)
    assert config == edit(plan.config, {**ALL_METHODS[name].edits, "seed": 5})
    assert (config.images.size_px, config.tasks.names) == (128, ("colour",))


def test_no_two_methods_are_the_same_model():
    plan = make_comparison(Config(), tuple(ALL_METHODS))
    configs = [plan.run_config(name, 0) for name in ALL_METHODS]
    assert all(one != other for i, one in enumerate(configs) for other in configs[:i])


def test_small_and_paper_sizes_differ_in_size_and_rates_alone():
    small, paper = (
        edit(Config(), method.edits).colour.palette
        for method in (METHODS["palette-rgb"], PAPER_METHODS["palette-rgb-paper"])
    )
    assert small.space == paper.space == "rgb"
    assert (paper.width, paper.multipliers, paper.blocks, paper.attentive) == (256, (1, 1, 2, 2, 4, 4), 2, 3)


def test_at_equal_wall_clock_a_method_with_unchanged_epochs_is_the_run_that_is_there():
    plan = make_comparison(Config(), ("l1", "gan", "pix2pix"))
    longer = plan.at_equal_wall_clock({"l1": (40, 20), "gan": (30, 15), "pix2pix": (0, 12)})
    assert list(longer.arms) == ["l1", "gan", "pix2pix", "l1-clock", "pix2pix-clock"]
    assert longer.planned_arms == plan.planned_arms == ["l1", "gan", "pix2pix"]
    assert longer.run_config("gan", 1) == plan.run_config("gan", 1)
    phases = longer.run_config("pix2pix-clock", 1).training
    assert (phases.heads.epochs, phases.finetune.epochs) == (0, 12)
    assert phases.finetune.learning_rate == 2e-4  # its own


def test_what_was_asked_stays_when_wall_clock_is_set():
    plan = make_comparison(Config(), ("l1", "gan"))
    longer = plan.at_equal_wall_clock({"l1": (40, 20), "gan": (30, 15)})
    assert longer != plan
    assert longer.frozen == plan.frozen
    assert longer.hash({}) == plan.hash({})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ("gan", "best")}, r"`methods` should be one of l1, l2, .*Found `methods = best`\.$"),
        (
            {"methods": ("gann", "best", "best")},
            r"Found `methods = gann`\. Did you mean `gan`\?\n`methods` [^\n]*Found `methods = best`\.$",
        ),
        ({"methods": ("gan", "")}, "two or more, each once. Found `methods = gan, `"),
        ({"methods": ("gan", "gan")}, "each once"),
        (
            {"methods": ("l1", "l2"), "reference": "gan"},
            r"`reference` should be one of l1, l2\. Found `reference = gan`\.",
        ),
        ({"methods": ("gan",)}, "two or more, each once. Found `methods = gan`"),
        ({"seeds": ()}, r"`seeds` should be one whole number at least\. Found `seeds = \[\]`"),
        ({"budget_s": -1.0}, "`budget_s` should be greater than 0"),
    ],
)
def test_what_cannot_be_compared_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_comparison(Config(), **arguments)


def test_settings_that_choose_a_method_themselves_are_refused():
    config = edit(Config(), {"tasks": {"names": ["colour"]}, "colour": {"method": "palette"}})
    with pytest.raises(ConfigError, match=r"`colour\.method` should be left to the methods"):
        make_comparison(config)


def test_without_the_gan_the_first_method_is_the_reference():
    assert make_comparison(Config()).reference == "gan"
    assert make_comparison(Config(), ("unet", "l1")).reference == "unet"


def test_hash_covers_what_is_trained():
    plan = make_comparison(Config())
    others = [
        make_comparison(Config(), seeds=(0, 1)),
        make_comparison(Config(), reference="unet"),
        make_comparison(edit(Config(), {"images": {"size_px": 64}})),
        make_comparison(Config(), tuple(METHODS)[:-1]),
        make_comparison(Config(), budget_s=10.0),
        make_comparison(edit(Config(), {"evaluation": {"networks": []}})),
    ]
    parts = {"images": "0a1b2c3d", "encoder_weights": {}}
    assert plan.hash(parts) not in {other.hash(parts) for other in others}
    assert plan.hash(parts) != plan.hash(parts | {"images": "11111111"})
    assert plan.hash(parts) == make_comparison(edit(Config(), {"training": {"cache_gib": 0}})).hash(parts)
    assert len(plan.hash(parts)) == 64


@given(st.floats(1.0, 1000.0), st.integers(1, 50), SECONDS)
def test_one_phase_comes_within_half_an_epoch_or_has_one(budget, usual, each):
    for epochs, pair in (((usual, 0), (each, 0.0)), ((0, usual), (0.0, each))):
        heads, tuned = epochs_within(budget, epochs, pair)
        count = heads + tuned
        assert 0 in (heads, tuned)
        assert count == 1 or abs(count * each - budget) <= each / 2 + 1e-6


@given(st.floats(1.0, 1000.0), st.integers(1, 20), st.integers(1, 20), SECONDS, SECONDS)
def test_no_usual_share_of_epochs_comes_nearer(budget, heads, tuned, own, others):
    found = epochs_within(budget, (heads, tuned), (own, others))
    assert min(found) >= 1

    def miss(epochs):
        return abs(epochs[0] * own + epochs[1] * others - budget)

    for more in range(1, int(budget / others) + 3):
        assert miss(found) <= miss((max(1, int(more * heads / tuned)), more)) + 1e-9


def test_the_usual_epochs_fit_their_own_time():
    assert epochs_within(4 * 7.0 + 2 * 14.0, (4, 2), (7.0, 14.0)) == (4, 2)
    assert epochs_within(120.0, (0, 6), (0.0, 20.0)) == (0, 6)


class Interrupted(Exception):
    """Simulates a power cut."""


@pytest.fixture(scope="module")
def plan(tiny):
    config = tiny(training__heads__epochs=1, training__finetune__epochs=1, colour__width=4)
    small = {"width": 4, "multipliers": (1, 2), "sample_steps": 2}
    config = edit(
        config, {"colour": {"palette": small}, "evaluation": {"perceptual": (), "networks": ("lite0",)}}
    )
    return make_comparison(config, COMPARED, seeds=(0, 1))


@pytest.fixture(scope="module")
def compared(plan, tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    calls = []

    def interrupt(event):
        calls.append(event["stage"])
        if calls.count("cell") == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_study(plan, root, report=interrupt)
    begun = {path.parent for path in root.glob("*/seed-*/status.json")}
    stamps = {path: (path / "status.json").stat().st_mtime_ns for path in begun}
    page = run_study(plan, root, description={"command": "knowhue compare"})
    assert all((path / "status.json").stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert page == root / "report.html"
    return root


def test_every_method_ran_with_every_seed_in_both_regimes(compared):
    regimes = read_json(compared / "results.json")["comparison"]["regimes"]
    assert {regime: set(found["methods"]) for regime, found in regimes.items()} == {
        "images": set(COMPARED), "clock": set(COMPARED),
    }  # fmt: skip
    for regime in regimes.values():
        assert regime["unfinished"] == []
        for method, found in regime["methods"].items():
            assert set(found["scores"]["ab_l1"]["by_seed"]) == {"0", "1"}
            assert {"ab_l1", "ciede2000", "fd_lite0", "recognition"} <= set(found["scores"])
            assert ("diversity" in found["scores"]) == (method == "palette-ab")
            assert min(found["cost"][name] for name in ("train_s", "predict_s_per_image", "parameters")) > 0


def test_runs_lie_in_the_folders_of_their_methods(compared):
    plan = read_plan(compared)
    assert plan.planned_arms == list(COMPARED)
    assert set(plan.arms) >= set(COMPARED)
    for arm in plan.arms:
        for seed in plan.seeds:
            assert (run_folder(compared, arm, plan.run_config(arm, seed)) / "samples.npz").is_file()


def test_images_are_equal_first_and_seconds_then(compared):
    methods = read_json(compared / "results.json")["comparison"]["regimes"]["images"]["methods"]
    assert len({each["cost"]["images_seen"] for each in methods.values()}) == 1
    clock = read_json(compared / "study.json")["wall_clock"]
    assert clock["budget_s"] == pytest.approx(methods["gan"]["cost"]["train_s"], abs=0.02)
    assert clock["epochs"]["gan"] == [1, 1]  # the method that sets the budget keeps its epochs


def test_gray_and_true_images_stand_beside(compared):
    baselines = read_json(compared / "results.json")["baselines"]
    shown_to = {name: next(iter(baselines[name]["recognition"].values())) for name in ("gray", "real")}
    assert baselines["gray"]["chroma_ratio"] == 0
    assert all(0 <= each["accuracy"] <= 1 for each in shown_to.values())


def test_the_report_holds_every_method_and_nothing_from_elsewhere(compared):
    page = (compared / "report.html").read_text()
    assert all(method in page for method in COMPARED)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert json.loads((compared / "results.json").read_text())["comparison"]["reference"] == "gan"


def test_status_and_report_know_a_comparison(compared, capsys, monkeypatch, tmp_path):
    for command in (["status", str(compared)], ["report", str(compared), "--figures", str(tmp_path)]):
        monkeypatch.setattr("sys.argv", ["knowhue", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    said = capsys.readouterr().out
    cells = len(read_plan(compared).arms) * 2
    assert f"{cells} of {cells} runs are done" in said
    assert f"Report: {compared / 'report.html'}" in said
    assert {path.name for path in tmp_path.iterdir()} == {
        "trade_off.png", "samples_images.png", "samples_clock.png", "drawn_images.png", "drawn_clock.png",
    }  # fmt: skip


def test_the_frozen_plan_is_what_was_asked(plan, compared, tmp_path):
    frozen = read_json(compared / "study.json")
    # at equal wall-clock, a method has a separate arm only if its epochs differ
    frozen["arms"] = {name: arm for name, arm in frozen["arms"].items() if name in plan.arms}
    frozen["arms"]["l1-clock"] = frozen["arms"]["l1"] | {"training": {"finetune": {"epochs": 2}}}
    write_json(tmp_path / "study.json", frozen)
    assert list(read_plan(tmp_path).arms) == [*plan.arms, "l1-clock"]
    assert list(read_planned(tmp_path / "study.json").arms) == list(plan.arms)


def test_a_diverged_reference_sets_no_budget(plan, compared, tmp_path):
    for seed in plan.seeds:
        folder = run_folder(compared, "gan", read_plan(compared).run_config("gan", seed))
        copy = tmp_path / folder.relative_to(compared)
        copy.mkdir(parents=True)
        (copy / "log.jsonl").write_text((folder / "log.jsonl").read_text())
        write_json(copy / "status.json", {"state": "diverged"})
    with pytest.raises(
        RunError,
        match=r"`gan` diverged with every seed.*Name a budget or another reference",
    ):
        equal_wall_clock(plan, tmp_path)


def test_a_method_that_diverged_in_its_first_epoch_keeps_its_epochs(plan, compared, tmp_path):
    """It has no speed, so that computing its epochs would divide by zero."""
    for method in COMPARED:
        for seed in plan.seeds:
            folder = run_folder(compared, method, read_plan(compared).run_config(method, seed))
            copy = tmp_path / folder.relative_to(compared)
            copy.mkdir(parents=True)
            lost = method == "palette-ab"
            (copy / "log.jsonl").write_text("" if lost else (folder / "log.jsonl").read_text())
            write_json(copy / "status.json", {"state": "diverged" if lost else "finished"})
    found = equal_wall_clock(plan, tmp_path)
    assert tuple(found["epochs"]["palette-ab"]) == plan.epochs("palette-ab")
    assert min(found["epochs"]["l1"]) > 0


def test_another_comparison_in_the_same_folder_is_refused(compared, plan):
    other = plan.model_copy(update={"seeds": (0, 1, 2)})
    with pytest.raises(
        RunError, match=r"frozen on .*, before its first run; now seeds would differ\..*--out"
    ):
        run_study(other, compared)


@pytest.mark.usefixtures("without_figures")
def test_the_same_call_repeats_nothing(compared, plan, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in compared.rglob("status.json")}
    frozen = (compared / "study.json").read_bytes()
    run_study(plan, compared, description={"command": "knowhue compare"})
    assert {path: path.stat().st_mtime_ns for path in compared.rglob("status.json")} == before
    assert (compared / "study.json").read_bytes() == frozen
