"""Feed-forward colorizers with their losses and the class heads learn in an ordinary run."""

import csv
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch

from knowhue.apps.progress import SHORT
from knowhue.config import ColourLoss
from knowhue.data.loaders import plain_batches
from knowhue.errors import ConfigError, RunError
from knowhue.models.heads import AttentionClassifier
from knowhue.models.multitask import Deployed, build_discriminator, build_model
from knowhue.models.pix2pix import PatchGAN
from knowhue.objectives.losses import PIXEL_LOSSES
from knowhue.presets import load_config
from knowhue.runs import read_log
from knowhue.storage import read_json
from knowhue.training.deploy import deploy
from knowhue.training.phases import build_networks, make_train_state
from knowhue.training.run import count_colours, load_run, run_arm
from knowhue.training.step import train_step

FEEDFORWARD = {"colour__method": "feedforward"}
UNSCORED = {"evaluation__networks": (), "evaluation__perceptual": ()}
SHORTER = {**UNSCORED, "training__heads__epochs": 1, "training__finetune__epochs": 1}
UNWATCHED = {**UNSCORED, "evaluation__every_epochs": 0}


@pytest.fixture
def tiny(tiny):
    """Several steps in an epoch."""
    return partial(tiny, training__batch_size=4)


LOGGED = {**{loss: loss for loss in PIXEL_LOSSES}, "classification": "colour_loss"}


@pytest.mark.parametrize(("loss", "logged"), LOGGED.items())
def test_feed_forward_runs_end_to_end_and_lowers_its_loss(tiny, make_work, loss, logged):
    colour = {"method": "feedforward", "loss": loss}
    config = tiny(tasks__names=("colour",), colour=colour, training__finetune={"epochs": 6}, **UNWATCHED)
    work = make_work(config, count=24)
    folder = run_arm(work, config, "colour")
    assert [set(entry["train"]) for entry in read_log(folder, "finetune")] == [{logged}] * 6
    with (folder / "per_image.csv").open() as file:
        assert all(np.isfinite(float(row["ab_l1"])) for row in csv.DictReader(file))
    assert read_json(folder / "status.json")["state"] == "finished"
    untrained, trained = build_model(config, 2).eval(), load_run(work, config, folder)
    if loss == "classification":
        untrained.colour.learn_prior(count_colours(work.prepared, work.prepared.positions("train")))
    assert _loss(trained, work, config) < _loss(untrained, work, config)


@pytest.mark.parametrize(("loss", "logged"), LOGGED.items())
def test_each_loss_is_weighed_by_its_epochs(tiny, make_work, loss, logged):
    config = tiny(
        colour={"method": "feedforward", "loss": loss},
        tasks__weighting="dwa",
        training={"batch_size": 12, "heads": {"epochs": 1}, "finetune": {"epochs": 3}},
        **UNSCORED,
    )
    entries = read_log(run_arm(make_work(config), config, "multi"), "finetune")
    assert [logged in entry["train"] for entry in entries] == [True] * 3
    assert entries[2]["train"]["weight_colour"] != 1


def test_a_pixel_loss_is_an_entry_and_a_name(tiny, make_work, monkeypatch):
    assert set(LOGGED) == set(get_args(ColourLoss))
    monkeypatch.setitem(PIXEL_LOSSES, "l4", lambda one, other: ((one - other) / 110).pow(4).mean())
    plain = tiny(tasks__weighting="dwa", training__finetune={"epochs": 3}, **UNSCORED)
    colour = plain.colour.model_copy(update={"method": "feedforward", "loss": "l4"})
    config = plain.model_copy(update={"colour": colour})
    work = make_work(config)
    networks = build_networks(work.engine, config, "ab")
    state = make_train_state(work.engine, networks, config, "finetune")
    (batch, *_) = plain_batches(work.prepared, work.prepared.positions("train"), 4, work.engine.device)
    losses = {name: float(value.detach()) for name, value in train_step(state, batch).items()}
    assert losses["l4"] > 0
    state.observe_epoch(losses, {})


def test_each_loss_has_a_name_in_the_progress():
    assert {*PIXEL_LOSSES, "colour_loss", "cross_entropy"} <= set(SHORT)


def _loss(model, work, config):
    """Of all training images at once."""
    (batch,) = plain_batches(work.prepared, work.prepared.positions("train"), 64, work.engine.device)
    with torch.no_grad():
        prediction = model(batch.lightness, None, batch.chroma)
    if prediction.colour_loss is not None:
        return prediction.colour_loss
    return PIXEL_LOSSES[config.colour.loss](prediction.chroma, batch.chroma)


def test_without_an_opponent_nothing_is_adversarial(tiny):
    assert build_discriminator(tiny()) is not None
    assert build_discriminator(tiny(**FEEDFORWARD)) is None


def test_plain_l1_regression_is_the_gan_without_its_adversarial_term(tiny, make_work):
    changes = {"tasks__names": ("colour",)}
    one, other = tiny(**changes, **FEEDFORWARD), tiny(**changes, colour__adversarial_weight=0)
    runs = [run_arm(make_work(each, name), each, "colour") for each, name in ((one, "a"), (other, "b"))]
    first, second = ((run / "per_image.csv").read_text() for run in runs)
    assert first == second


@pytest.mark.parametrize(
    ("method", "loss", "fitting"),
    [
        ("unet", "l2", "l1 or classification"),
        ("gan", "l2", "l1 or classification"),
        ("pix2pix", "classification", "l1"),
        ("palette", "l2", "l1"),
    ],
)
def test_a_loss_that_a_method_has_not_is_refused_with_the_remedy(method, loss, fitting):
    remedy = r"--set colour\.method=(unet or gan or )?feedforward"
    message = rf"`colour\.loss` should be {fitting} where `colour\.method = {method}`.*{remedy}"
    with pytest.raises(ConfigError, match=message):
        load_config(settings=[f"colour.method={method}", f"colour.loss={loss}"])


def test_a_discriminator_judges_the_mean_of_313_colours(tiny, make_work):
    colour = {"method": "unet", "loss": "classification"}
    measured = SHORTER | {"evaluation__gradient_batches": 1}
    weights = {"judged": 30.0, "left alone": 0.0}
    folders, logs = {}, {}
    for name, weight in weights.items():
        config = tiny(colour=colour | {"adversarial_weight": weight}, **measured)
        folders[name] = run_arm(make_work(config, name), config, "multi")
        logs[name] = [set(entry["train"]) for entry in read_log(folders[name])]
    adversarial = {"generator", "discriminator", "discriminator_real", "discriminator_fake"}
    assert logs["judged"] == [each | adversarial for each in logs["left alone"]]
    config = tiny(colour=colour | {"method": "feedforward"}, **SHORTER)
    plain = run_arm(make_work(config, "plain"), config, "multi")
    judged, alone, without = ((folder / "per_image.csv").read_text() for folder in (*folders.values(), plain))
    assert judged != alone == without
    shares = read_json(folders["judged"] / "gradient_shares.json")
    assert "adversarial" in shares["end"]["norms"]


def test_what_the_discriminator_judges_is_what_is_predicted(tiny):
    changes = {"colour": {"method": "unet", "loss": "classification", "logit_adjustment": 0.5}}
    model = build_model(tiny(**changes), 2)
    lightness, truth = torch.rand(2, 1, 32, 32) * 100, 40 * torch.randn(2, 2, 32, 32)
    trained, asked = model(lightness, truth=truth), model(lightness)
    torch.testing.assert_close(trained.chroma, asked.chroma)
    assert trained.colour_loss == model.colour.loss(model.features(lightness), lightness, truth)
    assert asked.colour_loss is None
    (gradient,) = torch.autograd.grad(trained.chroma.square().sum(), model.colour.out.weight)
    assert gradient.abs().sum() > 0


def test_rare_colours_count_more_and_the_prior_is_kept_with_the_weights(tiny, make_work):
    config = tiny(
        tasks__names=("colour", "class"), colour={"method": "feedforward", "loss": "classification"}
    )
    work = make_work(config)
    counts = count_colours(work.prepared, work.prepared.positions("train"))
    assert counts.sum().item() == len(work.prepared.positions("train")) * (32 // 4) ** 2
    model = load_run(work, config, run_arm(work, config, "multi"))
    rebalance = model.colour.rebalance
    assert rebalance[counts.argmax()] < rebalance.median()
    answer = Deployed(model, 1.0, 1, 1.0).eval()(torch.full((1, 1, 20, 28), 50.0))
    assert answer.chroma.shape == (1, 2, 20, 28)


def test_attention_pooling_learns_beside_the_colour_head(tiny, make_work):
    encoder = {"name": "tf_efficientnet_lite0"}  # a smaller one learns no noise in so few steps
    epochs = {"training__heads__epochs": 1, "training__finetune__epochs": 6}
    config = tiny(encoder=encoder, class__head="attention", training__batch_size=12, **epochs, **UNWATCHED)
    assert isinstance(build_model(config, 2).classifier, AttentionClassifier)
    folder = run_arm(make_work(config), config, "multi")
    entries = read_log(folder, "finetune")
    assert entries[-1]["train"]["cross_entropy"] < entries[0]["train"]["cross_entropy"]


SMALL = {"pix2pix": {"width": 4}, "palette": {"width": 4, "multipliers": (1, 2), "sample_steps": 3}}
SCRATCH = {
    "pix2pix": {"method": "pix2pix", **SMALL},
    "palette-rgb": {"method": "palette", **SMALL},
    "palette-ab": {"method": "palette", **SMALL, "palette": {**SMALL["palette"], "space": "ab"}},
}
BRIEF = {
    **UNWATCHED, "training__batch_size": 6, "training__heads__epochs": 0, "training__finetune__epochs": 1,
}  # fmt: skip
LONG = {"epochs": 12, "learning_rate": 4e-3}


@pytest.mark.parametrize("name", SCRATCH)
def test_a_network_from_scratch_runs_end_to_end_and_lowers_its_loss(tiny, make_work, name):
    config = tiny(tasks__names=("colour",), colour=SCRATCH[name], training__finetune=LONG, **UNWATCHED)
    work = make_work(config, count=24)
    folder = run_arm(work, config, "colour")
    log = read_log(folder)
    assert {entry["phase"] for entry in log} == {"finetune"}  # nothing to freeze, so no heads first
    assert [entry["epoch"] for entry in log] == list(range(1, 2 + 12 + 1))  # of both phases
    assert not (work.root / "heads").exists()
    assert not (work.root / "features").exists() or not list((work.root / "features").glob("*/tap-*"))
    loss = "l1" if name == "pix2pix" else "colour_loss"
    first, last = (np.mean([entry["train"][loss] for entry in part]) for part in (log[:5], log[-5:]))
    assert last < 0.98 * first
    assert read_json(folder / "status.json")["state"] == "finished"
    with (folder / "per_image.csv").open() as file:
        assert all(np.isfinite(float(row["ab_l1"])) for row in csv.DictReader(file))


@pytest.mark.parametrize("name", SCRATCH)
def test_what_is_drawn_in_training_comes_from_the_seed_alone(tiny, make_work, name):
    """Dropout and noise depend only on the seed, not on earlier draws."""
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        torch.rand(number + 1)
        config = tiny(tasks__names=("colour",), colour=SCRATCH[name], seed=seed, **BRIEF)
        runs.append((run_arm(make_work(config, str(number)), config, "colour") / "per_image.csv").read_text())
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", SCRATCH)
def test_a_network_from_scratch_is_refused_beside_the_class_task(tiny, name):
    config = tiny(colour=SCRATCH[name])
    method = SCRATCH[name]["method"]
    with pytest.raises(
        ConfigError, match=rf"`tasks\.names` should be colour alone where `colour\.method = {method}`"
    ):
        build_model(config, 2)


def test_pix2pix_has_its_own_opponent_of_70_pixels(tiny):
    opponent = build_discriminator(tiny(tasks__names=("colour",), colour=SCRATCH["pix2pix"]))
    assert isinstance(opponent, PatchGAN)
    assert build_discriminator(tiny(tasks__names=("colour",), colour=SCRATCH["palette-rgb"])) is None


@pytest.mark.parametrize("size", [(20, 28), (32, 32), (33, 65)])
@pytest.mark.parametrize("name", SCRATCH)
def test_networks_from_scratch_colour_images_of_any_size(tiny, name, size):
    model = build_model(tiny(tasks__names=("colour",), colour=SCRATCH[name]), 2).eval()
    lightness = 100 * torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model(lightness).chroma.shape == (2, 2, *size)


def test_the_posters_head_reads_the_coarsest_map_and_the_unet_all(tiny):
    taps = {
        name: build_model(tiny(tasks__names=("colour",), colour__method=name), 2).taps
        for name in ("gan", "unet")
    }
    assert len(taps["gan"]) == 1
    assert len(taps["unet"]) > 1
    assert tiny() == tiny(colour__method="unet")


def test_scores_can_wait_for_the_end(tiny, make_work):
    config = tiny(tasks__names=("colour",), evaluation__every_epochs=0)
    folder = run_arm(make_work(config), config, "colour")
    assert [entry["validation"] for entry in read_log(folder)] == [{}] * 4
    assert read_json(folder / "scores.json")["metrics"]["ab_l1"] > 0


def test_a_network_from_scratch_is_not_put_to_work_and_says_so(tiny, make_work):
    config = tiny(tasks__names=("colour",), colour=SCRATCH["palette-ab"], **BRIEF)
    folder = run_arm(make_work(config), config, "colour")
    with pytest.raises(RunError, match=r"Found `colour\.method = palette`\. Train with unet"):
        deploy(folder)
    assert not (folder / "colorizer.safetensors").exists()


def test_samples_that_are_drawn_are_kept_with_their_spread(tiny, make_work):
    config = tiny(tasks__names=("colour",), colour=SCRATCH["palette-rgb"], **UNSCORED)
    folder = run_arm(make_work(config), config, "colour")
    with np.load(folder / "samples.npz") as file:
        assert file["drawn"].shape == (4, *file["rgb"].shape)
        assert (file["drawn"][0] == file["rgb"]).all()  # the first is the answer
        assert file["diversity"].shape == (len(file["rgb"]),)
        assert (file["diversity"] > 0).all()
