"""A whole phase: its log, the trained weights, and a run that diverges."""

import json
import math
from functools import partial

import pytest
import torch

from knowhue.errors import RunError
from knowhue.models.encoder import weights_digest
from knowhue.runs import read_log, write_status
from knowhue.storage import read_json, write_json
from knowhue.training.loop import run_phase
from knowhue.training.run import make_networks, run_arm, run_head
from knowhue.training.step import train_step


@pytest.fixture
def tiny(tiny):
    """Several steps in an epoch."""
    return partial(tiny, training__batch_size=4)


@pytest.fixture
def run(tiny, make_work):
    """Run a phase of the tiny configuration: session, log, work."""

    def make(name="heads", **changes):
        config = tiny(**changes)
        work = make_work(config)
        session = make_networks(work, config)
        return session, run_phase(work, config, work.root / name, session, name), work

    return make


def test_every_epoch_is_logged(run):
    _, log, work = run(training__heads__epochs=3)
    assert read_log(work.root / "heads") == log
    assert [entry["epoch"] for entry in log] == [1, 2, 3]
    for entry in log:
        assert entry["train"].keys() == {
            "l1", "generator", "discriminator", "discriminator_real", "discriminator_fake", "cross_entropy",
        }  # fmt: skip
        assert {"ab_l1", "adversarial", "accuracy"} <= entry["validation"].keys()
        assert entry["images_per_second"] > 0


def test_finetuning_counts_on_from_the_heads(run):
    _, log, _ = run("finetune", training__heads__epochs=5)
    assert [entry["epoch"] for entry in log] == [6, 7]


def test_every_epoch_of_both_phases_has_its_own_order(run, monkeypatch):
    from knowhue.training import loop

    asked = []

    class Recorded(loop.TrainingBatches):
        def __init__(self, *arguments, epoch, shift_px, **others):
            asked.append((epoch, shift_px))
            super().__init__(*arguments, epoch=epoch, shift_px=shift_px, **others)

    monkeypatch.setattr(loop, "TrainingBatches", Recorded)
    for phase in ("heads", "finetune"):
        run(phase, evaluation__gradient_batches=0)  # which looks at the first batches of fine-tuning, too
    # While features are cached images can be mirrored, but not moved.
    assert asked == [(0, 0), (1, 0), (2, 2), (3, 2)]


@pytest.mark.parametrize("supervision", [{"labelled_share": 0.3}, {"image_share": 0.7, "resample": True}])
def test_arms_of_a_block_see_the_same_images_and_labels_in_every_step(
    tiny, make_work, monkeypatch, supervision
):
    from knowhue.training import loop

    seen = []

    class Recorded(loop.TrainingBatches):
        def __iter__(self):
            for batch, mirrored in super().__iter__():
                seen.append((batch.position.tolist(), batch.label.tolist(), mirrored.tolist()))
                yield batch, mirrored

    monkeypatch.setattr(loop, "TrainingBatches", Recorded)
    of = {}
    for names in (("colour",), ("class",), ("colour", "class")):
        config = tiny(tasks={"names": names}, supervision=supervision)
        work = make_work(config, "-".join(names))
        run_phase(work, config, work.root / "run", make_networks(work, config), "finetune")
        of[names], seen = list(seen), []
    first, *others = of.values()
    assert first
    assert all(each == first for each in others)
    assert all(max(label) >= 0 for _, label, _ in first)  # every step has labels, for every arm


def test_learning_lowers_the_training_loss(run):
    _, log, _ = run(
        training__heads__epochs=12,
        encoder={"name": "tf_efficientnet_lite0", "weights": "package"},
        training__heads__learning_rate=1e-2,
    )
    assert log[-1]["train"]["cross_entropy"] < 0.7 * log[0]["train"]["cross_entropy"]


def test_training_does_not_depend_on_the_saturation_of_predictions(tiny, make_work):
    trained, scores = [], []
    for saturation in (1.0, 0.5):
        config = tiny(colour__saturation=saturation)
        work = make_work(config, f"saturation-{saturation}")
        networks = make_networks(work, config)
        log = run_phase(work, config, work.root / "finetune", networks, "finetune")
        assert len(log) == 2  # the second epoch begins in the mode that scoring the first has left
        trained.append(networks.model.state_dict())
        scores.append(log[-1]["validation"]["ab_l1"])
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    assert scores[0] != scores[1]


@pytest.mark.parametrize("phase", ["heads", "finetune"])
def test_the_encoder_moves_only_where_it_should(run, tiny, make_work, phase):
    config = tiny()
    before = weights_digest(make_networks(make_work(config, "untouched"), config).model.encoder)
    session, _, _ = run(phase)
    assert (weights_digest(session.model.encoder) == before) == (phase == "heads")


def test_progress_is_told_each_step(tiny, make_work):
    config, events = tiny(), []
    work = make_work(config, report=events.append)
    run_phase(work, config, work.root / "run", make_networks(work, config), "heads")
    told = [(event["epoch"], event["step"]) for event in events if event["stage"] == "train"]
    assert told == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]


@pytest.fixture
def diverging(monkeypatch):
    """Make every classification loss infinite."""
    from knowhue.training import step

    def infinite(logits, *_):
        return logits.sum() * math.inf

    monkeypatch.setattr(step, "cross_entropy", infinite)


def test_diverged_run_is_named_and_kept(tiny, make_work, diverging):
    config = tiny(tasks__names=("class",), training__heads__epochs=3)
    work = make_work(config)
    folder = run_head(work, config, "class", "multi")
    status = read_json(folder / "status.json")
    assert status["state"] == "diverged"
    assert "a loss is not finite in heads epoch 1" in status["reason"]
    (entry,) = read_log(folder)
    assert entry["train"]["cross_entropy"] is None
    json.dumps(read_json(folder / "scores.json"), allow_nan=False)
    before = (folder / "status.json").stat().st_mtime_ns
    run_head(work, config, "class", "multi")
    assert (folder / "status.json").stat().st_mtime_ns == before


def test_a_run_whose_last_step_diverged_is_named_too(tiny, make_work, monkeypatch):
    """No loss shows that the run diverged, and its scores would look like chance."""
    config = tiny(tasks__names=("class",))
    work = make_work(config)

    def stepped(state, batch):
        losses = train_step(state, batch)
        with torch.no_grad():
            state.networks.model.classifier.linear.bias.fill_(math.inf)
        return {name: torch.ones_like(value) for name, value in losses.items()}

    monkeypatch.setattr("knowhue.training.loop.train_step", stepped)
    status = read_json(run_head(work, config, "class", "multi") / "status.json")
    assert status["state"] == "diverged"
    assert status["reason"].startswith("a weight is not finite after heads epoch 2: ")


def test_arm_of_a_diverged_head_is_diverged_too(tiny, make_work, diverging):
    config = tiny(tasks__names=("class",))
    folder = run_arm(make_work(config), config, "class")
    assert read_json(folder / "status.json")["state"] == "diverged"


@pytest.mark.parametrize("epochs", [1, 3])
def test_interrupted_diverged_phase_is_named_too(tiny, make_work, diverging, monkeypatch, epochs):
    # The state after the diverged epoch is saved before the run is named; a second call must name it too.
    config = tiny(tasks__names=("class",), training__heads__epochs=epochs)
    work = make_work(config)
    with monkeypatch.context() as patch:
        patch.setattr("knowhue.training.scores.write_scores", None)
        with pytest.raises(TypeError):
            run_head(work, config, "class", "multi")
    folder = run_head(work, config, "class", "multi")
    assert read_json(folder / "status.json")["state"] == "diverged"


def test_unlabelled_images_alone_in_a_batch_do_no_harm(tiny, make_work):
    config = tiny(training__batch_size=2)
    work = make_work(config, unlabelled=10)
    log = run_phase(work, config, work.root / "run", make_networks(work, config), "heads")
    assert all(value is not None and math.isfinite(value) for value in log[-1]["train"].values())
    assert torch.isfinite(torch.tensor(log[-1]["train"]["cross_entropy"]))


def test_a_finished_run_of_another_version_is_refused_and_stays(tiny, make_work):
    config = tiny(tasks__names=("class",))
    work = make_work(config)
    folder = run_head(work, config, "class", "multi")
    settings = read_json(folder / "config.json")
    settings["schema"]["version"] -= 1
    write_json(folder / "config.json", settings)
    write_status(folder, {"state": "finished"})  # whole, by its checksums
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunError, match="written by another version"):
        run_head(work, config, "class", "multi")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("epochs", [0, 1])
def test_features_are_cached_only_for_epochs_that_read_them(tiny, make_work, epochs):
    config = tiny(tasks__names=("class",), training__heads__epochs=epochs)
    work = make_work(config)
    folder = run_arm(work, config, "class")
    assert len(read_log(folder)) == epochs + config.training.finetune.epochs
    assert (work.root / "features").exists() == bool(epochs)
