"""Runs that start from a trained model: what they take, what they refuse, and what stays the same."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from knowhue.cells import check_gate
from knowhue.errors import ConfigError, DamagedError, KnowhueError, RunError, WeightsError
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.export import export_hub_folder, export_safetensors, model_card
from knowhue.inference.networks import open_torch, save_model
from knowhue.models.encoder import weights_digest
from knowhue.presets import arm_config, edit
from knowhue.runs import BUILT_IN, BUILT_IN_FILE, read_start, read_status, write_status
from knowhue.serving.schemas import ModelAnswer
from knowhue.training.deploy import deploy
from knowhue.training.engine import Engine
from knowhue.training.phases import build_networks
from knowhue.training.run import evaluate_run, make_networks, open_workspace, run_arm, run_head, train
from knowhue.training.start import find_source, initial_heads, require_fit, start_from, start_of

CLASSES = ("coral_reef", "jellyfish", "penguin", "shark", "starfish")
SHORT = {"training__heads": {"epochs": 1}, "training__finetune": {"epochs": 1}, "evaluation__networks": ()}


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory) -> Path:
    """A folder in which a multi-task run was trained."""
    root = tmp_path_factory.mktemp("source")
    train(tiny(**SHORT), root, "multi")
    return root


@pytest.fixture(scope="module")
def run(study) -> Path:
    return next((study / "multi").iterdir())


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> dict[str, Path]:
    """The same model in every form that a name can refer to."""
    home = tmp_path_factory.mktemp("exported")
    copy = home / "copy"
    shutil.copytree(run.parent.parent, copy)
    network = open_torch(deploy(copy))
    export_safetensors(network, home / "model.safetensors")
    export_hub_folder(network, home / "hub")
    return {
        "study": copy,
        "run": next((copy / "multi").iterdir()),
        "its weights": next((copy / "multi").glob("*/model.safetensors")),
        "deployed": next((copy / "multi").glob("*/colorizer.safetensors")),
        "file": home / "model.safetensors",
        "hub folder": home / "hub",
    }


@pytest.fixture
def started(tiny, run):
    """Settings of a run that starts from the source."""

    def make(arm="multi", source=run, **changes):
        return arm_config(tiny(**SHORT, encoder={"weights": str(source), "with_heads": True}, **changes), arm)

    return make


def named(work, *classes):
    return replace(work, prepared=replace(work.prepared, classes=classes))


@pytest.mark.parametrize("form", ["study", "run", "its weights", "deployed", "file", "hub folder"])
def test_every_form_of_a_model_is_the_same_start(started, exported, run, form):
    config = started(source=exported[form])
    start = start_of(config, CLASSES)
    assert start.sha256 == start_of(started(), CLASSES).sha256
    assert (start.colour, start.classes, start.new_classes) == (True, CLASSES, 0)
    for name, value in heads_of(config, CLASSES).items():
        assert torch.equal(value, load_file(run / "model.safetensors")[name]), name


def networks_of(config, classes):
    return build_networks(Engine(config.training), config, classes)


def heads_of(config, classes):
    return {
        name: value
        for name, value in networks_of(config, classes).weights(with_encoder=False).items()
        if not name.startswith("discriminator")
    }


def test_every_arm_starts_where_the_source_ended(started, run):
    """The first step of all arms is computed with the same function, the source model."""
    lightness = 100 * torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    source = networks_of(edit(started(), {"encoder": {"weights": "none", "with_heads": False}}), CLASSES)
    source.load(load_file(run / "model.safetensors"))
    with torch.no_grad():
        expected = source.model.eval()(lightness)
        answers = {
            arm: networks_of(started(arm), CLASSES).model.eval()(lightness)
            for arm in ("colour", "class", "multi", "placebo-labels")
        }
    assert expected.chroma.abs().max() > 0
    for arm in ("colour", "multi", "placebo-labels"):
        assert torch.equal(answers[arm].chroma, expected.chroma)
    for arm in ("class", "multi", "placebo-labels"):
        assert torch.equal(answers[arm].logits, expected.logits)


def test_the_encoder_alone_leaves_the_heads_new(started, run):
    alone = edit(started(), {"encoder": {"with_heads": False}})
    assert start_of(alone, CLASSES) is None
    assert not heads_of(alone, CLASSES)["colour.out.weight"].any()
    assert heads_of(started(), CLASSES)["colour.out.weight"].any()


@pytest.mark.parametrize(
    "classes", [tuple(reversed(CLASSES)), ("shark", "whale"), ("auk", "jellyfish", "shark", "whale")]
)
def test_rows_of_a_class_head_go_with_their_names(started, run, classes):
    config, source = started(), load_file(run / "model.safetensors")
    taken = heads_of(config, classes)
    drawn = heads_of(edit(config, {"encoder": {"with_heads": False}}), classes)
    for name in ("class.linear.weight", "class.linear.bias"):
        for row, each in enumerate(classes):
            expected = source[name][CLASSES.index(each)] if each in CLASSES else drawn[name][row]
            assert torch.equal(taken[name][row], expected), (name, each)
    start = start_of(config, classes)
    assert start.classes == tuple(each for each in classes if each in CLASSES)
    assert start.new_classes == len(set(classes) - set(CLASSES))


def test_a_class_head_of_other_classes_is_new(started):
    classes = ("auk", "whale")
    config = started()
    drawn = heads_of(edit(config, {"encoder": {"with_heads": False}}), classes)
    assert torch.equal(heads_of(config, classes)["class.linear.weight"], drawn["class.linear.weight"])
    assert start_of(config, classes).sentence().endswith("its encoder, its colour head; 2 classes are new.")


def test_what_a_class_head_has_of_no_class_goes_with_its_first_known_class(tiny, tmp_path):
    head = {"class__head": "attention"}
    source = train(tiny(**SHORT, **head), tmp_path / "source", "class")
    config = arm_config(tiny(**SHORT, **head, encoder={"weights": str(source), "with_heads": True}), "class")
    trained, drawn = (
        load_file(source / "model.safetensors"),
        heads_of(edit(config, {"encoder": {"with_heads": False}}), ("auk", "shark")),
    )
    for classes, expected in ((("auk", "shark"), trained), (("auk", "whale"), drawn)):
        for name in ("class.question.weight", "class.value.weight", "class.out.bias"):
            assert torch.equal(heads_of(config, classes)[name], expected[name])


def test_a_task_that_the_source_lacks_is_new(tiny, tmp_path, started):
    source = train(tiny(**SHORT), tmp_path / "source", "colour")
    config = started(source=source)
    start = start_of(config, CLASSES)
    assert (start.colour, start.classes, start.new_classes) == (True, (), 5)
    drawn = heads_of(edit(config, {"encoder": {"with_heads": False}}), CLASSES)
    assert torch.equal(heads_of(config, CLASSES)["class.linear.weight"], drawn["class.linear.weight"])


def test_rare_colours_are_those_of_the_new_images(tiny, tmp_path, make_work):
    way = {"colour": {"method": "feedforward", "loss": "classification", "width": 4}}
    source = train(tiny(**SHORT, **way), tmp_path / "source", "colour")
    config = arm_config(tiny(**SHORT, **way, encoder={"weights": str(source), "with_heads": True}), "colour")
    work = make_work(config)
    fresh = make_networks(work, edit(config, {"encoder": {"with_heads": False}})).model.colour
    colour = make_networks(work, config).model.colour
    assert torch.equal(colour.rebalance, fresh.rebalance)
    assert not torch.equal(colour.out.weight, fresh.out.weight)


def test_the_gate_passes_from_a_start(started, make_work, monkeypatch):
    config = started(training__batch_size=4)
    found = check_gate(named(make_work(config), "shark", "whale"), config)
    parts = ("heads", "finetune_colour", "finetune_class")
    assert [found[part]["differ"] for part in parts] == [[], [], []]
    # and notices arms that start otherwise
    monkeypatch.setattr(
        "knowhue.training.phases.initial_heads",
        lambda config, *given: {} if config.tasks.names == ("colour",) else initial_heads(config, *given),
    )
    failed = check_gate(named(make_work(config, "again"), "shark", "whale"), config)
    assert "colour.out.weight" in failed["heads"]["differ"]


class Interrupted(Exception):
    """Simulates a power cut."""


def cut_after(steps):
    left = [steps]

    def report(event):
        left[0] -= event["stage"] == "train"
        if left[0] < 0:
            raise Interrupted

    return report


LONGER = {"training": {"batch_size": 4, "heads": {"epochs": 2}, "finetune": {"epochs": 2}}}


def test_resumed_is_uninterrupted(started, make_work):
    config = edit(started("colour"), LONGER)
    whole = run_arm(make_work(config, "whole"), config, "colour")
    for steps in (4, 3):  # 3 steps an epoch: in the second of the head, in the second of fine-tuning
        with pytest.raises(Interrupted):
            run_arm(make_work(config, "cut", cut_after(steps)), config, "colour")
    resumed = run_arm(make_work(config, "cut"), config, "colour")
    for name in ("model.safetensors", "scores.json", "per_image.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.fixture
def movable(run, tmp_path) -> Path:
    """A copy of the source that a test may change."""
    shutil.copytree(run.parent.parent, tmp_path / "movable")
    return next((tmp_path / "movable" / "multi").iterdir())


def change_colour_head(run):
    """As if it had been trained again: other weights, with valid checksums in its status."""
    weights = load_file(run / "model.safetensors")
    weights["colour.out.bias"] = weights["colour.out.bias"] + 1
    save_file(weights, run / "model.safetensors")
    status = read_status(run)
    write_status(run, status)


def test_a_start_that_changes_in_between_is_refused(started, make_work, movable):
    config = edit(started("colour", source=movable), LONGER)
    with pytest.raises(Interrupted):
        run_arm(make_work(config, "heads", cut_after(4)), config, "colour")
    run_head(make_work(config, "arm"), config, "colour", "multi")
    change_colour_head(movable)
    for name in ("heads", "arm"):
        with pytest.raises(
            RunError, match=r"was trained with start [0-9a-f]{64}, now .* or name another folder\.$"
        ):
            run_arm(make_work(config, name), config, "colour")


def test_what_was_trained_needs_its_start_no_more(started, make_folder, movable, tmp_path):
    photos = make_folder({"shark": 12, "whale": 12}, size_px=32)
    images = {"source": "folder", "path": str(photos), "min_colourfulness": 0, "duplicate_distance_bits": 0}
    config = started(source=movable, images=images)
    notes = []
    folder = train(config, tmp_path / "out", "multi", lambda event: notes.append(event.get("text", "")))
    (said,) = [note for note in notes if note.startswith("Started from")]
    assert said.endswith("its encoder, its colour head and, of its class head, shark; 1 class is new.")
    scores = (folder / "scores.json").read_bytes()
    shutil.rmtree(movable.parent.parent)
    evaluate_run(folder)
    assert (folder / "scores.json").read_bytes() == scores
    description = open_torch(deploy(folder)).description
    assert description.start == read_start(folder)
    assert description.start.sentence() == said
    assert "states: nothing." in model_card(description)


def test_a_licence_goes_with_the_weights_and_paths_do_not(started, tmp_path, exported):
    network = open_torch(exported["deployed"])
    licensed = network.description.model_copy(update={"licence": "research use only"})
    export_safetensors(network, tmp_path / "mine.safetensors", description=licensed)
    config = started(source=tmp_path / "mine.safetensors")
    start = start_of(config, CLASSES)
    assert start.licence == "research use only"
    network.description = network.description.model_copy(update={"start": start, "config": config})
    said = "of `mine.safetensors`, which it started from: research use only"  # the API tells it, and no path
    assert ModelAnswer.of("x", Colorizer(network)).licence == network.description.licences == said
    both = network.description.model_copy(update={"licence": "MIT"})
    assert both.licences == f"MIT; {said}"
    assert licensed.model_copy(update={"start": start}).licences == "research use only"
    export_hub_folder(network, tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "The model that it started from, `mine.safetensors`, states: research use only." in card
    assert str(tmp_path) not in card + (tmp_path / "hub" / "config.json").read_text()
    # the licence is also read from the exported model
    assert find_source(str(tmp_path / "hub")).licence == "research use only"


def test_a_studys_hash_knows_the_heads_that_it_starts_from(started, movable, tmp_path):
    def parts(config, name):
        return open_workspace(config, tmp_path / name, lambda _: None).encoders

    with_heads = parts(started(source=movable), "heads")
    alone = parts(edit(started(source=movable), {"encoder": {"with_heads": False}}), "alone")
    change_colour_head(movable)
    assert parts(edit(started(source=movable), {"encoder": {"with_heads": False}}), "again") == alone
    changed = parts(started(source=movable), "changed")
    assert with_heads.keys() == changed.keys() != alone.keys()
    assert len({*with_heads.values(), *changed.values(), *alone.values()}) == 3


def test_settings_are_the_sources_where_nothing_else_is_said(run, study, tmp_path):
    config = start_from(str(study))
    assert config.encoder.model_dump() == {
        "name": "test_efficientnet", "weights": str(run), "with_heads": True,
    }  # fmt: skip
    assert (config.images.size_px, config.colour.width, config.images.source) == (32, 4, "folder")
    (tmp_path / "mine.yaml").write_text("training: {shift_px: 1}\ncolour: {adversarial_weight: 0}")
    mine = start_from(str(study), "demo", [tmp_path / "mine.yaml"], ["images.size_px=48"])
    assert (mine.images.size_px, mine.training.shift_px, mine.colour.adversarial_weight) == (48, 1, 0)
    assert mine.training.heads.epochs == 8  # the preset's
    assert mine.encoder == config.encoder


def test_settings_that_do_not_matter_to_the_heads_may_differ(study):
    require_fit(start_from(str(study), settings=["colour.method=feedforward", "colour.loss=l2"]))


@pytest.mark.parametrize("preset", ["unet", "poster", "l1"])
def test_a_preset_of_another_colour_head_is_named_and_not_lost(preset):
    with pytest.raises(
        ConfigError, match=rf"`--preset {preset}`: `colour\.loss` should be classification, as in"
    ):
        start_from("built-in", preset)


def test_presets_that_say_nothing_of_colour_or_the_same_go_with_a_model():
    for preset in ("demo", "classification", None):
        assert start_from("built-in", preset).colour.loss == "classification"


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("unet", ["encoder.name=resnet18"], r"`encoder\.name` should be test_efficientnet, as in .*resnet18"),
        (
            "unet",
            ["colour.width=8"],
            r"`colour\.width` should be 4, as in .*Found `colour\.width = 8`.*--set",
        ),
        ("poster", [], r"`colour\.method` and `colour\.decoder` should be unet, auto.*colour\.method = gan"),
        ("classification", [], r"`colour\.loss` should be l1, as in .*Found `colour\.loss = classification`"),
        ("unet", ["class.head=attention"], r"`class\.head` should be linear, as in .*attention"),
        ("pix2pix", [], r"`colour\.method` should be one with an encoder where `encoder\.with_heads = true`"),
        (
            "unet",
            ["encoder.weights=package"],
            r"`encoder\.weights` should name a trained model.*--start-from sets both",
        ),
        ("unet", ["encoder.weights=other"], r"`encoder\.weights` should be left to `--start-from .*other"),
        ("unet", ["encoder.with_heads=false"], r"`encoder\.with_heads` should be left to `--start-from"),
    ],
)
def test_contradictions_are_named(study, preset, settings, message):
    with pytest.raises(ConfigError, match=message):
        start_from(str(study), preset, settings=settings)


def test_all_that_differs_is_named(study):
    with pytest.raises(ConfigError) as caught:
        start_from(str(study), settings=["colour.width=8", "class.head=attention"])
    assert [name in str(caught.value) for name in ("`colour.width`", "`class.head`")] == [True, True]


def test_a_run_without_a_head_is_not_asked_about_it(started):
    require_fit(started("class", colour__width=8))
    with pytest.raises(ConfigError, match=r"`colour\.width`"):
        require_fit(started("colour", colour__width=8))


def test_settings_are_compared_before_any_image_is_read(started, tmp_path):
    with pytest.raises(ConfigError, match=r"`colour\.width`"):
        open_workspace(started(colour__width=8), tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "Found no file `nowhere`"),
        ("built-on", "Did you mean `built-in`"),
        ("", "finished run or study"),
        ("empty", "Found no finished run there"),
        ("model.onnx", r"should be .* or a \.safetensors file.*knowhue export"),
        (
            "text.safetensors",
            r"should be a readable safetensors file\. Found: text\. Copy or export it again",
        ),
        ("bare.safetensors", "weights without a description"),
    ],
)
def test_what_is_no_trained_model_is_refused(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("model.onnx").write_bytes(b"")
    Path("text.safetensors").write_text("hello")
    save_file({"x": torch.zeros(1)}, "bare.safetensors")
    with pytest.raises(KnowhueError, match=message):
        start_from(name)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_source_is_refused(movable, name):
    path = movable / name
    path.write_bytes(path.read_bytes()[:-1] + b"~")
    with pytest.raises(DamagedError, match=name):
        start_from(str(movable))


def test_weights_that_are_not_as_described_are_refused(started, tmp_path, exported):
    network = open_torch(exported["deployed"])
    config = edit(network.description.config, {"colour": {"width": 8}})
    described = network.description.model_copy(update={"config": config})
    weights = {name: value.contiguous() for name, value in network.module.state_dict().items()}
    save_model(tmp_path / "lies.safetensors", described, weights)
    with pytest.raises(WeightsError, match=r"should hold the heads of its description.*of shape"):
        heads_of(started(source=tmp_path / "lies.safetensors", colour__width=8), CLASSES)


@pytest.mark.parametrize("state", ["diverged", "running"])
def test_a_run_that_did_not_finish_is_refused(movable, state):
    write_status(movable, {"state": state})
    with pytest.raises(RunError, match="no finished run"):
        start_from(str(movable))


def test_an_oracle_is_no_start(tiny, tmp_path):
    source = train(tiny(**SHORT), tmp_path, "oracle")
    with pytest.raises(RunError, match="an oracle, which is given the true class"):
        start_from(str(source))


def test_how_vivid_the_built_in_model_is_made_at_several_sizes_is_not_taken_over():
    shipped, config = find_source(BUILT_IN).config.colour, start_from(BUILT_IN).colour
    assert shipped.saturation > 1 == config.saturation
    assert config == shipped.model_copy(update={"saturation": 1.0})
    assert start_from(BUILT_IN, settings=["colour.saturation=1.5"]).colour.saturation == 1.5


def test_the_built_in_model_is_a_start():
    model = networks_of(start_from(BUILT_IN), find_source(BUILT_IN).classes).model
    assert weights_digest(model) == weights_digest(open_torch(BUILT_IN_FILE).module.model)
