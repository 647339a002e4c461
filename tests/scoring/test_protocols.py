"""Protocols: geometry agrees with torch and Pillow; hashes; protocols from files."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from score_folders import picture
from torch.nn.functional import interpolate

from knowhue.errors import ConfigError
from knowhue.images.image import Image
from knowhue.scoring.protocols import PROTOCOLS, Protocol, read_protocol, to_protocol

RANDOM = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)


def with_size(base: str, **changed) -> Protocol:
    return Protocol.model_validate(PROTOCOLS[base].model_dump() | changed)


@pytest.mark.parametrize("side", [16, 37, 64])
def test_stretching_is_torchs_bilinear_without_antialiasing(side):
    made = to_protocol(Image.of(RANDOM), with_size("stretch-256", size_px=side))
    tensor = torch.from_numpy(RANDOM).permute(2, 0, 1)[None].double()
    expected = interpolate(tensor, size=(side, side), mode="bilinear", align_corners=False)
    expected = np.floor(expected[0].permute(1, 2, 0).numpy() + 0.5)
    assert made.dtype == np.uint8
    # a value that lies on a half may fall to either side by rounding
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() < 1e-3


@pytest.mark.parametrize("side", [12, 17, 33])
def test_a_crop_is_the_middle_square_and_its_area_is_pillows_box(side):
    made = to_protocol(Image.of(RANDOM), with_size("crop-256", size_px=side))
    middle = RANDOM[:, 8:45].astype(np.float32)
    planes = [Pillow.fromarray(middle[..., k]).resize((side, side), Pillow.Resampling.BOX) for k in range(3)]
    # Pillow's box takes whole pixels only, so it is the same where these divide
    if 37 % side == 0:
        np.testing.assert_allclose(made, np.stack(planes, -1), atol=0.5)
    assert made.shape == (side, side, 3)


def test_the_area_of_whole_blocks_is_their_mean():
    pixels = np.random.default_rng(1).integers(0, 256, (48, 48, 3), np.uint8)
    made = to_protocol(Image.of(pixels), with_size("crop-256", size_px=16))
    mean = pixels.reshape(16, 3, 16, 3, 3).astype(float).mean((1, 3))
    np.testing.assert_array_equal(made, np.floor(mean + 0.5))


def test_the_area_of_parts_of_pixels_keeps_the_mean():
    pixels = np.random.default_rng(2).integers(0, 256, (50, 50, 3), np.uint8)
    made = to_protocol(Image.of(pixels), with_size("crop-256", size_px=11))
    assert abs(made.mean() - pixels.mean()) < 0.3


def test_original_leaves_pixels_alone_and_16_bits_as_they_are():
    deep = RANDOM.astype(np.uint16) * 257
    assert to_protocol(Image.of(deep), PROTOCOLS["original"]) is deep
    narrow = to_protocol(Image.of(deep), with_size("stretch-256", size_px=37))
    assert narrow.dtype == np.uint8


def test_gray_files_get_three_equal_channels_and_a_given_size_is_left():
    gray = RANDOM[..., :1].copy()
    made = to_protocol(Image.of(gray), PROTOCOLS["original"])
    np.testing.assert_array_equal(made, np.repeat(gray, 3, 2))
    small = picture(0, 20)
    assert to_protocol(Image.of(small), with_size("crop-256", size_px=20), (20, 20)) is small


def test_each_field_is_in_the_hash():
    first = PROTOCOLS["stretch-256"]
    changed = {
        "name": "x", "geometry": "crop", "size_px": 255, "interpolation": "area", "codes": "as-stored",
        "equal_psnr_db": 99.0, "lightness_tolerance": 2.0, "near_gray_below": 1.0, "primary": "ab_l1", "alpha": 0.01,
        "margins": {"ciede2000": 0.5},
    }  # fmt: skip
    assert {*changed, "colour"} == set(Protocol.model_fields)
    digests = {with_size("stretch-256", **{name: value}).digest for name, value in changed.items()}
    assert len(digests | {first.digest}) == len(changed) + 1
    assert first.digest == with_size("stretch-256").digest
    assert len({each.digest for each in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_a_protocol_of_ones_own_is_read_from_yaml(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("name: own\ngeometry: crop\nsize_px: 64\ninterpolation: area\ncodes: 8-bit\n")
    assert read_protocol(str(path)).size_px == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name: own\ngeometry: round\nsize_px: 64\ninterpolation: area\ncodes: 8-bit\n",
            "`geometry` should be one of",
        ),
        ("name: own\ngeometry: crop\nsize_px: null\ninterpolation: area\ncodes: 8-bit\n", "`size_px`"),
        (
            "name: own\ngeometry: crop\nsize_px: 64\ninterpolation: area\ncodes: 8-bit\nprimary: psnr\n",
            "`primary` should be one of .* Did you mean `psnr_rgb`",
        ),
        (
            "name: own\ngeometry: original\nsize_px: null\ninterpolation: none\ncodes: 8-bit\nmargins: {ab_l1: 1}\n",
            "`primary` should be one of ab_l1",
        ),
        (
            "name: own\ngeometri: crop\n",
            "`geometri` is not a setting. A page of `knowhue score` prints them all. Did you mean",
        ),
        (
            "name: crop-256\ngeometry: crop\nsize_px: 64\ninterpolation: area\ncodes: 8-bit\n",
            "`name` of .* should be one of its own: `crop-256` is knowhue's protocol",
        ),
        ("[1]", "own.yaml"),
    ],
)
def test_a_file_that_is_no_protocol_is_refused(tmp_path, text, said):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_protocol(str(path))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="Did you mean `stretch-256`"):
        read_protocol("strech-256")
