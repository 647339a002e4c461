"""Encoders from disk that no hub has: pretrained on gray images, or fine-tuned by a run of ours."""

import json
import re

import pytest
import timm
import torch

from knowhue.config import Encoder as EncoderConfig
from knowhue.errors import WeightsError
from knowhue.models.encoder import ENCODERS, build_encoder, pretrained_features, weights_digest
from knowhue.training.train import _session, _write_weights

LITE0 = "tf_efficientnet_lite0"


def noise(*shape):
    return 100 * torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def randomise(network):
    """Away from the initial values, at which some norms are 1 and hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim < 2:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_a_gray_encoder_sees_one_channel_normalised_by_the_means(tmp_path, name):
    theirs = randomise(timm.create_model(name, pretrained=False, in_chans=1))
    torch.save(theirs.state_dict(), tmp_path / "gray.pth")
    ours = build_encoder(EncoderConfig(name=name, weights=str(tmp_path / "gray.pth"))).eval()
    features = timm.create_model(name, pretrained=False, in_chans=1, features_only=True).eval()
    named = {re.sub(r"^(stem|stages)\.(\d+)\.", r"\1_\2.", k): v for k, v in theirs.state_dict().items()}
    features.load_state_dict({k: named[k] for k in features.state_dict()})
    lightness = noise(2, 1, 64, 64)
    gray = (lightness / 100 - ours.mean.mean()) / ours.deviation.mean()
    with torch.no_grad():
        pairs = list(zip(ours(lightness), features(gray), strict=True))
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def test_imagenets_means_are_those_of_the_docstring():
    encoder = build_encoder(EncoderConfig(name="resnet18", weights="none"))
    assert encoder.mean.mean().item() == pytest.approx(0.449, abs=5e-4)
    assert encoder.deviation.mean().item() == pytest.approx(0.226, abs=5e-4)


def test_only_the_first_kernel_is_spread(tmp_path):
    weights = timm.create_model(LITE0, pretrained=False, in_chans=1).state_dict()
    torch.save(weights, tmp_path / "gray.pth")
    body = build_encoder(EncoderConfig(name=LITE0, weights=str(tmp_path / "gray.pth"))).body.state_dict()
    torch.testing.assert_close(
        body.pop("conv_stem.weight"), weights["conv_stem.weight"].expand(-1, 3, -1, -1) / 3
    )
    assert all(torch.equal(value, weights[name]) for name, value in body.items())


def test_an_evaluator_that_must_see_colour_refuses_a_gray_encoder(tmp_path):
    torch.save(timm.create_model(LITE0, pretrained=False, in_chans=1).state_dict(), tmp_path / "gray.pth")
    with pytest.raises(WeightsError, match=r"another shape, such as `conv_stem\.weight`"):
        pretrained_features(LITE0, str(tmp_path / "gray.pth"))


@pytest.mark.parametrize("channels", [2, 4])
def test_a_first_kernel_of_other_counts_is_refused(tmp_path, channels):
    torch.save(
        timm.create_model(LITE0, pretrained=False, in_chans=channels).state_dict(), tmp_path / "odd.pth"
    )
    with pytest.raises(WeightsError, match=r"another shape, such as `conv_stem\.weight`"):
        build_encoder(EncoderConfig(name=LITE0, weights=str(tmp_path / "odd.pth")))


@pytest.fixture
def make_run(tiny, make_work):
    """A run folder as training leaves it, of weights that nothing else has."""

    def make(state="finished", with_encoder=True):
        config = tiny()
        work = make_work(config)
        session = _session(work, config)
        randomise(session.model.encoder)
        folder = work.root / "multi" / "seed-0-12345678"
        folder.mkdir(parents=True)
        _write_weights(folder, session, with_encoder)
        (folder / "status.json").write_text(json.dumps({"state": state}))
        return folder, session.model.encoder

    return make


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_finished_runs_encoder_serves_another(make_run, named):
    folder, trained = make_run()
    path = folder if named == "folder" else folder / "model.safetensors"
    assert weights_digest(build_encoder(EncoderConfig(name=LITE0, weights=str(path)))) == weights_digest(
        trained
    )


def test_a_runs_file_serves_wherever_it_was_put(make_run, tmp_path):
    folder, trained = make_run()
    moved = (folder / "model.safetensors").rename(tmp_path / "mine.safetensors")
    assert weights_digest(build_encoder(EncoderConfig(name=LITE0, weights=str(moved)))) == weights_digest(
        trained
    )


@pytest.mark.parametrize("move", [False, True])
def test_a_run_that_kept_no_encoder_is_refused(make_run, tmp_path, move):
    path, _ = make_run(with_encoder=False)
    if move:
        path = (path / "model.safetensors").rename(tmp_path / "mine.safetensors")
    with pytest.raises(
        WeightsError, match=r"should hold an encoder\. Found only heads.*Name a run that fine-tuned"
    ):
        build_encoder(EncoderConfig(name=LITE0, weights=str(path)))


@pytest.mark.parametrize("named", ["folder", "file"])
@pytest.mark.parametrize("state", ["running", "diverged"])
def test_a_run_that_did_not_finish_is_refused(make_run, state, named):
    folder, _ = make_run(state)
    path = folder if named == "folder" else folder / "model.safetensors"
    with pytest.raises(WeightsError, match=f"folder of a finished run.*which is {state}"):
        build_encoder(EncoderConfig(name=LITE0, weights=str(path)))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="which is no run"):
        build_encoder(EncoderConfig(name=LITE0, weights=str(tmp_path)))


def test_a_run_of_another_encoder_is_refused(make_run):
    folder, _ = make_run()
    with pytest.raises(WeightsError, match=r"all 120 tensors of `resnet18`.*--set encoder\.name="):
        build_encoder(EncoderConfig(name="resnet18", weights=str(folder)))
