"""The A/A gate: on a frozen encoder, heads trained together equal heads trained alone, bit for bit."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from knowhue.presets import head_config
from knowhue.training.feature_cache import cache_features
from knowhue.training.loop import run_phase
from knowhue.training.run import make_networks, run_head


@pytest.fixture
def tiny(tiny):
    """The test uses the real encoder, because it is about the rounding of its arithmetic."""
    unscored = {"networks": (), "perceptual": ()}
    encoder = {"name": "tf_efficientnet_lite0"}
    return partial(tiny, encoder=encoder, training__batch_size=4, evaluation=unscored)


def train_both_ways(config, work):
    """Weights by name of both heads trained in one model, and of each trained in its own run."""
    session = make_networks(work, config)
    if config.training.cache_gib:
        everything = np.arange(len(work.prepared.rgb))
        cache = cache_features(session.model, work, everything, "of its own")
        session = replace(session, features=cache)
    run_phase(work, config, work.root / "joint", session, "heads")
    joint = {
        f"{name}.{key}": value
        for name, module in session.modules(with_encoder=False).items()
        for key, value in module.state_dict().items()
    }
    folders = [run_head(work, config, task, "multi") for task in ("colour", "class")]
    return joint, {k: v for folder in folders for k, v in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("decoder", ["transposed", "auto"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_joint_heads_are_the_separate_heads(tiny, make_work, decoder, cached, precision):
    config = tiny(colour__decoder=decoder, training__cache_gib=10 * cached, training__precision=precision)
    joint, alone = train_both_ways(config, make_work(config, unlabelled=3))
    assert joint.keys() == alone.keys()
    assert [key for key, value in joint.items() if not torch.equal(value, alone[key])] == []


@pytest.mark.parametrize("supervision", [{"labelled_share": 0.3}, {"image_share": 0.6, "resample": True}])
def test_joint_heads_are_the_separate_heads_with_few_labels_or_images(tiny, make_work, supervision):
    config = tiny(supervision=supervision)
    joint, alone = train_both_ways(config, make_work(config, count=24))
    assert [key for key, value in joint.items() if not torch.equal(value, alone[key])] == []


def test_heads_did_learn(tiny, make_work):
    config = tiny()
    joint, _ = train_both_ways(config, make_work(config))
    untrained = make_networks(make_work(config), config).modules(with_encoder=False)
    assert not torch.equal(joint["class.linear.weight"], untrained["class"].get_parameter("linear.weight"))
    assert joint["colour.out.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("colour", {"class__label_smoothing": 0.1}),
        ("class", {"colour__width": 8}),
        ("class", {"colour__gan_loss": "hinge"}),
        ("colour", {"training__finetune__epochs": 7}),
        ("class", {"training__shift_px": 3}),
        ("class", {"tasks__weights__class": 3.0}),
    ],
)
def test_what_does_not_concern_a_head_does_not_rename_it(tiny, task, change):
    assert head_config(tiny(), task) == head_config(tiny(**change), task)


@pytest.mark.parametrize(
    ("task", "change"),
    [("class", {"class__label_smoothing": 0.1}), ("colour", {"colour__width": 8}), ("class", {"seed": 1})],
)
def test_what_concerns_a_head_renames_it(tiny, task, change):
    assert head_config(tiny(), task) != head_config(tiny(**change), task)
