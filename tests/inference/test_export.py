"""An exported model predicts the same as its source and contains no local paths; differences are detected."""

import json
import os

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from tiny_models import describe, lite0_network, noise

from knowhue.errors import ConfigError, RunError, WeightsError
from knowhue.inference.description import ScoreInterval
from knowhue.inference.export import (
    SIZES,
    export_hub_folder,
    export_safetensors,
    largest_differences,
    model_card,
    trial_images,
    upload,
)
from knowhue.inference.networks import Predictions, open_network, open_torch
from knowhue.metric_table import METRICS


def _answer(lightness, chroma=0.0, novelty=0.0, count=None, probabilities=None):
    size = len(lightness) if count is None else count
    return Predictions(
        np.full((*lightness.shape, 2), chroma, np.float32), probabilities, np.full(size, novelty, np.float32)
    )


def test_the_largest_of_each_output_is_said():
    found = largest_differences(_answer, lambda seen: _answer(seen, -float(seen.max() > 99), 0.25))
    assert found == {"chroma": 1, "novelty": 0.25}


def test_other_shapes_and_missing_heads_differ_infinitely():
    found = largest_differences(
        _answer,
        lambda seen: _answer(seen, count=len(seen) + 1, probabilities=np.ones((len(seen), 2), np.float32)),
    )
    assert found == {"chroma": 0, "novelty": np.inf, "probabilities": np.inf}


def test_what_is_no_number_is_never_small():
    at_once = iter([np.nan] + [0.0] * 99)
    assert np.isnan(largest_differences(_answer, lambda seen: _answer(seen, next(at_once)))["chroma"])


def test_noise_and_smooth_images_of_every_size_are_tried():
    images = trial_images()
    assert [each.shape for each in images] == [size for size in SIZES for _ in range(2)]
    assert all(each.min() >= 0 and each.max() <= 100 and each.dtype == np.float32 for each in images)


@pytest.fixture(scope="module")
def network():
    return lite0_network()


def _equal(one, other):
    return all(np.array_equal(first, second) for first, second in zip(one, other, strict=True))


def test_a_copy_answers_equally(network, tmp_path):
    differences = export_safetensors(network, tmp_path / "copy.safetensors")
    lightness = noise(2, 41, 33)
    copy = open_torch(tmp_path / "copy.safetensors")
    assert _equal(copy.predict(lightness), network.predict(lightness))
    assert copy.description == network.description
    assert differences == {"chroma": 0, "probabilities": 0, "novelty": 0}


def test_half_precision_halves_the_file_and_says_what_it_costs(network, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    export_safetensors(network, whole)
    differences = export_safetensors(open_torch(whole), half, "float16")
    opened = open_torch(half)
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    assert opened.description == describe(precision="float16")
    assert {tensor.dtype for tensor in opened.module.state_dict().values()} <= {torch.float32, torch.int64}
    assert differences == largest_differences(network.predict, opened.predict)
    assert all(value > 0 for value in differences.values())


def test_weights_beyond_half_precision_are_refused(tmp_path):
    network = lite0_network()
    network.module.model.classifier.linear.bias.data[0] = 1e5
    with pytest.raises(WeightsError, match=r"finite in float16.*`model\.classifier\.linear\.bias`.*65504"):
        export_safetensors(network, tmp_path / "half.safetensors", "float16")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "reef-colours"
    export_hub_folder(network, folder)
    return folder


def test_a_hub_folder_loads_offline_with_equal_answers(network, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lightness = noise(2, 50, 37)
    assert _equal(open_network(folder).predict(lightness), network.predict(lightness))
    assert sorted(os.listdir(folder)) == ["README.md", "config.json", "model.safetensors"]


def test_a_hub_folder_tells_nothing_of_the_machine(folder):
    description = open_network(folder).description
    assert description.name == "reef-colours"
    assert description.config.images.path == "photos"
    for file in folder.iterdir():
        assert b"/home/somebody" not in file.read_bytes()
    assert json.loads((folder / "config.json").read_text()) == description.model_dump(mode="json")


def test_other_readers_know_the_weights_for_pytorchs(folder):
    with safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata()["format"] == "pt"


def test_a_run_is_not_overwritten(network, tmp_path):
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a run or a study"):
        export_hub_folder(network, tmp_path)
    assert os.listdir(tmp_path) == ["status.json"]


def test_the_card_has_front_matter_data_scores_and_limits():
    metrics = {name: ScoreInterval(value=0.5, low=0.25, high=0.75) for name in METRICS}
    card = model_card(describe(metrics=metrics, licence="MIT"))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "mit"
    assert front["library_name"] == "knowhue"
    assert {"image-colorization", "image-classification"} <= set(front["tags"])
    assert "| Mean absolute error of a\\*b\\*, CIELAB units | 0.500 | 0.250 to 0.750 | lower |" in card
    assert "| Accuracy | 0.500 | 0.250 to 0.750 | higher |" in card
    assert card.count("| 0.500 | 0.250 to 0.750 |") == len(METRICS)
    for words in ("90 training and 30 validation", "temperature of 1.50", "0.050 before, 0.020 after"):
        assert words in card
    assert "knowhue colorize photo.jpg --model FOLDER" in card
    assert "not a record of what was there" in card


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("", {"license": "unknown"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("MIT: mine", {"license": "other", "license_name": "MIT: mine"}),
    ],
)
def test_the_licence_is_one_that_the_hub_knows(licence, front):
    found = yaml.safe_load(model_card(describe(licence=licence)).split("---\n")[1])
    assert {key: value for key, value in found.items() if key.startswith("license")} == front


def test_a_card_promises_only_what_the_model_does():
    colours = model_card(describe(("colour",)))
    classes = model_card(describe(("class",)))
    assert ": a model that colours grayscale photographs\n" in colours
    assert ": a model that classifies grayscale photographs\n" in classes
    assert colours.count("colours grayscale photographs") == 1
    assert "from knowhue import Colorizer\n" in colours
    assert "Classes:" not in colours
    assert "image-classification" not in colours
    assert "knowhue colorize" not in classes
    assert yaml.safe_load(classes.split("---\n")[1])["pipeline_tag"] == "image-classification"


class RecordingHub:
    """Takes what is uploaded."""

    def __init__(self, error=None):
        self.calls, self.error = [], error

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.error:
            raise self.error
        self.calls.append((repo_id, private, exist_ok))

    def upload_folder(self, **what):
        self.calls.append(what)


def test_upload_makes_a_private_repository_and_one_commit_of_three_files(folder, tmp_path):
    hub = RecordingHub()
    assert upload(folder, "me/reef", hub) == "https://huggingface.co/me/reef"
    made, committed = hub.calls
    assert made == ("me/reef", True, True)
    assert committed["folder_path"] == folder
    assert sorted(committed["allow_patterns"]) == ["README.md", "config.json", "model.safetensors"]


def test_a_hub_that_refuses_is_quoted_and_the_way_on_named(folder):
    with pytest.raises(RunError, match=r"uploaded to `me/reef`: no token\. .*hf upload me/reef") as caught:
        upload(folder, "me/reef", RecordingHub(ValueError("no token\nand much more")))
    assert "\n" not in str(caught.value)


def test_without_network_the_hub_is_not_waited_for(folder, monkeypatch):
    monkeypatch.setattr("knowhue.inference.export.hub_resolves", lambda: False)
    with pytest.raises(RunError, match="the hub cannot be reached"):
        upload(folder, "me/reef")


def test_what_is_no_hub_folder_is_not_uploaded(tmp_path):
    hub = RecordingHub()
    with pytest.raises(ConfigError, match=r"Found no README.md, config.json, model.safetensors"):
        upload(tmp_path, "me/reef", hub)
    assert hub.calls == []
