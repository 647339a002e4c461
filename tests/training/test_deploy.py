"""From a run to a model file: the fitted values are right, and the file predicts as the run does."""

import numpy as np
import pytest
import torch

from knowhue.errors import RunError
from knowhue.inference.description import Calibration
from knowhue.inference.export import model_card
from knowhue.inference.networks import build_deployed, open_torch
from knowhue.storage import read_json
from knowhue.training.deploy import _intervals, deploy
from knowhue.training.run import train


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    config = tiny(
        encoder={
            "name": "tf_efficientnet_lite0",
            "weights": "package",
        },  # of random weights no distance means anything
        training__heads={"epochs": 1},
        training__finetune={"epochs": 1},
        evaluation={"networks": (), "perceptual": ()},
    )
    return train(config, tmp_path_factory.mktemp("deploy"), "multi")


@pytest.fixture(scope="module")
def file(run):
    return deploy(run)


def test_a_licence_is_that_which_was_asked_for_last(file, run):
    before = open_torch(file).description
    for licence in ("MIT", "CC0-1.0"):
        assert deploy(run, licence=licence) == file
        found = open_torch(file).description
        assert found == before.model_copy(update={"licence": licence})
    deploy(run)  # none is asked for
    assert open_torch(file).description.licence == "CC0-1.0"


def test_a_reference_is_at_home_and_its_opposite_as_far_as_can_be(file):
    module = open_torch(file).module
    module.references = torch.nn.functional.normalize(module.references[:1].repeat(12, 1), dim=1)
    assert module.distance(module.references[:1] * 7).item() == pytest.approx(0, abs=1e-5)
    assert module.distance(-module.references[:1]).item() == pytest.approx(2, abs=1e-5)


def test_the_file_says_what_it_is(file, run):
    description = open_torch(file).description
    scores = read_json(run / "scores.json")["metrics"]
    assert description.classes == ("coral_reef", "jellyfish", "penguin", "shark", "starfish")
    assert description.size_px == 32
    assert description.metrics["ab_l1"].value == pytest.approx(scores["ab_l1"], abs=1e-4)
    assert description.metrics["accuracy"].value == pytest.approx(scores["accuracy"], abs=1e-4)
    assert description.metrics["ab_l1"].low < scores["ab_l1"] < description.metrics["ab_l1"].high
    assert description.calibration is not None


def test_probabilities_are_the_runs_with_the_temperature(file):
    network = open_torch(file)
    seen = np.random.default_rng(0).uniform(0, 100, (3, 32, 48)).astype(np.float32)
    answer = network.predict(seen)
    with torch.no_grad():
        logits = network.module.model(torch.from_numpy(seen)[:, None]).logits
    temperature = network.description.temperature
    assert answer.chroma.shape == (3, 32, 48, 2)
    assert np.allclose(answer.probabilities, (logits / temperature).softmax(1).numpy(), atol=1e-6)
    assert np.allclose(answer.probabilities.sum(1), 1, atol=1e-5)


def test_noise_is_farther_than_the_validation_images(file, run):
    network = open_torch(file)
    rgb = np.load(run.parent.parent / "images" / "images.npy")[:16].astype(np.float32)
    usual = network.predict((rgb.mean(-1) / 2.55).astype(np.float32)).novelty
    noise = np.random.default_rng(0).choice([0.0, 100.0], (16, 32, 32)).astype(np.float32)
    assert np.median(usual) < 1
    assert np.median(network.predict(noise).novelty) > np.median(usual) * 1.1


def test_is_made_once(file, run):
    before = file.stat().st_mtime_ns
    assert deploy(run.parent.parent) == file
    assert file.stat().st_mtime_ns == before


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="finished run"):
        deploy(tmp_path)


@pytest.mark.parametrize(("ece_after", "applied"), [(0.05, 2.5), (0.1, 1.0), (0.164, 1.0)])
def test_a_temperature_is_applied_only_where_it_helps(file, ece_after, applied):
    fitted = Calibration(temperature=2.5, ece_before=0.1, ece_after=ece_after, images=75)
    network = open_torch(file)
    description = network.description.model_copy(update={"calibration": fitted})
    module = build_deployed(description, network.module.state_dict(), "it")
    assert module.temperature == description.temperature == applied
    card = model_card(description)
    assert ("not calibrated" in card, "calibrated by a temperature" in card) == (applied == 1, applied != 1)


@pytest.mark.parametrize("correct", [0, 1, 19, 20])
def test_the_interval_of_a_share_is_wilsons(tmp_path, correct):
    """Against statsmodels' formula, written out: Wilson 1927."""
    rows = ["ab_l1,correct", *(f"{n % 3},{int(n < correct)}" for n in range(20))]
    (tmp_path / "per_image.csv").write_text("\n".join(rows))
    found = _intervals(tmp_path / "per_image.csv")
    p, n, z = correct / 20, 20, 1.959964
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = np.array([p, (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)])
    assert np.allclose(
        [found["accuracy"].value, found["accuracy"].low, found["accuracy"].high], expected, atol=1e-6
    )
    assert 0 <= found["accuracy"].low <= found["accuracy"].high <= 1
    assert found["ab_l1"].low < found["ab_l1"].value < found["ab_l1"].high
