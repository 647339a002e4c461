"""sRGB and CIELAB agree with two independent libraries, at every 8-bit gray and at reduced precision."""

import re
import subprocess
import sys
from pathlib import Path

import colour
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import lab2rgb, rgb2lab

from knowhue import color
from knowhue.color import (
    FOOT,
    FOOT_ROOT,
    colourfulness,
    cube_root,
    lab_to_linear,
    lab_to_rgb,
    linear_to_srgb,
    rgb_to_lab,
    srgb_to_lab,
    srgb_to_linear,
)

images = arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8), st.just(3)))


def tensor(rgb: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3), 8 bits, to (B, 3, H, W), 0 to 1."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 255


def joined(rgb: torch.Tensor) -> np.ndarray:
    """L*a*b* with channels last, as in the other libraries."""
    return torch.cat(rgb_to_lab(rgb), 1).permute(0, 2, 3, 1).numpy()


@settings(deadline=None, max_examples=30)
@given(images)
def test_parity_with_scikit_image(rgb):
    np.testing.assert_allclose(joined(tensor(rgb)), rgb2lab(rgb / 255.0), atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(images)
def test_parity_with_colour_science(rgb):
    theirs = colour.XYZ_to_Lab(colour.sRGB_to_XYZ(rgb / 255.0))
    np.testing.assert_allclose(joined(tensor(rgb)), theirs, atol=0.05)


def test_back_is_scikit_images_way_back():
    generator = np.random.default_rng(0)
    lab = rgb2lab(generator.random((1, 64, 64, 3)))
    ours = torch.from_numpy(lab).float().permute(0, 3, 1, 2)
    back = lab_to_rgb(ours[:, :1], ours[:, 1:]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(back, lab2rgb(lab), atol=1e-4)


@pytest.mark.parametrize("which", ["grays", "random"])
def test_eight_bit_round_trip_changes_no_value(which):
    grays = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    random = np.random.default_rng(0).integers(0, 256, (1, 1, 100_000, 3), dtype=np.uint8)
    rgb = tensor(grays if which == "grays" else random)
    back = lab_to_rgb(*rgb_to_lab(rgb))
    assert torch.equal((back * 255).round(), (rgb * 255).round())


def test_grays_have_no_chroma_and_rising_lightness():
    gray = torch.linspace(0, 1, 256).reshape(1, 1, 1, 256).expand(1, 3, 1, 256)
    lightness, chroma = rgb_to_lab(gray)
    assert chroma.abs().max() < 0.02
    assert (lightness.diff() > 0).all()
    assert lightness.min().abs() < 1e-4
    assert abs(lightness.max() - 100) < 1e-3


def test_without_clipping_colours_out_of_gamut_stay_out():
    lightness, chroma = torch.full((1, 1, 1, 1), 50.0), torch.full((1, 2, 1, 1), 110.0)
    clipped, free = lab_to_rgb(lightness, chroma), lab_to_rgb(lightness, chroma, clip=False)
    assert clipped.min() >= 0 and clipped.max() <= 1  # noqa: PT018
    assert free.max() > 1 or free.min() < 0


@pytest.mark.parametrize("gray", [0.0, 1e-4, 0.5, 1.0])
def test_gradients_are_finite_from_black_to_white(gray):
    rgb = torch.full((1, 3, 2, 2), gray, requires_grad=True)
    lightness, chroma = rgb_to_lab(rgb)
    (lightness.sum() + chroma.square().sum()).backward()
    assert rgb.grad.isfinite().all()


@pytest.mark.parametrize("level", [0.0, 8.0, 50.0, 100.0])
def test_gradients_back_are_finite(level):
    lightness, chroma = torch.full((1, 1, 1, 2), level), torch.zeros(1, 2, 1, 2)
    chroma[..., 1] = 90.0  # out of gamut at every lightness
    chroma.requires_grad_()
    lab_to_rgb(lightness, chroma, clip=False).sum().backward()
    assert chroma.grad.isfinite().all()


def test_reduced_precision_has_no_part_in_it():
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    outside = rgb_to_lab(rgb)
    with torch.autocast("cpu", torch.bfloat16):
        inside = rgb_to_lab(rgb)
        back = lab_to_rgb(*inside)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
    assert torch.equal(back, lab_to_rgb(*outside))
    assert back.dtype == torch.float32


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 1, 4, 4), (1, 4, 4, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`rgb` should be of shape \(B, 3, H, W\)\. Found \("):
        rgb_to_lab(torch.zeros(shape))


def test_lightness_and_chroma_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="`lightness` should be of shape"):
        lab_to_rgb(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="`chroma` should be of shape"):
        lab_to_rgb(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))


def test_arrays_agree_with_tensors_and_with_scikit_image():
    lab = rgb2lab(np.random.default_rng(1).random((1, 500, 3)))[0].T
    linear = lab_to_linear(lab[0], lab[1:])
    np.testing.assert_allclose(linear_to_srgb(linear.clip(0, 1)).T, lab2rgb(lab.T[None])[0], atol=1e-5)
    lightness, chroma = (torch.from_numpy(part).float()[None, :, None] for part in (lab[:1], lab[1:]))
    tensors = lab_to_rgb(lightness, chroma)[0, :, 0].numpy()
    np.testing.assert_allclose(linear_to_srgb(linear.clip(0, 1)), tensors, atol=1e-4)


@given(st.integers(2, 4096))
def test_the_curve_goes_there_and_back(steps):
    codes = np.linspace(0, 1, steps)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(codes)), codes, atol=1e-7)


def test_the_curve_goes_on_below_0_as_the_independent_ones_do():
    codes = np.linspace(-1, 1, 101)[:, None].repeat(3, 1)  # a warning would be an error
    np.testing.assert_allclose(srgb_to_lab(codes), rgb2lab(codes), atol=1e-3)  # its slope has four digits
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(codes)), codes, atol=1e-7)
    assert np.isnan(srgb_to_linear(np.array([np.nan]))).all()


def test_the_root_is_continuous_and_gives_lightness():
    around = cube_root(np.array([FOOT * (1 - 1e-9), FOOT * (1 + 1e-9)]))
    np.testing.assert_allclose(around, FOOT_ROOT, atol=1e-8)
    gray = srgb_to_linear(np.linspace(0, 1, 256))
    expected = rgb2lab(np.linspace(0, 1, 256)[None, :, None].repeat(3, 2))[0, :, 0]
    np.testing.assert_allclose(116 * cube_root(gray) - 16, expected, atol=1e-3)


def test_no_constant_of_colour_is_typed_twice():
    """The constants of the matrix, the transfer curve and CIELAB's linear part occur only in `color`."""
    typed = re.compile(
        r"0\.4124|0\.3575|0\.1804|0\.2126|0\.7151|0\.0193|0\.9502|0\.04045|0\.00313|12\.92|841 /|/ 841|1\.0888"
    )
    root = Path(color.__file__).parent
    found = {
        path.relative_to(root).as_posix(): typed.findall(path.read_text(encoding="utf-8"))
        for path in root.rglob("*.py")
    }
    assert {name for name, constants in found.items() if constants} == {"color.py"}


def test_constants_and_arrays_need_no_torch():
    program = "import sys, knowhue.color; print(sorted({'torch', 'kornia'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def array(rgb):
    """Bytes (H, W, 3) as `colourfulness` takes them."""
    return np.moveaxis(rgb[None], -1, 1).astype(float)


def test_colourfulness_is_the_same_of_arrays_and_tensors():
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found = colourfulness(array(noise))
    assert isinstance(found, np.ndarray)
    assert colourfulness(torch.from_numpy(array(noise))).tolist() == pytest.approx(found.tolist(), rel=1e-12)
    assert colourfulness(array(noise), absolute=True) < found


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, ">f8"])
def test_colourfulness_is_the_same_of_codes_of_any_type(dtype):
    noise = array(np.random.default_rng(0).integers(0, 256, (16, 16, 3)))
    assert colourfulness(noise.astype(dtype)) == pytest.approx(colourfulness(noise))
    if dtype != ">f8":  # torch has no such order of bytes
        assert colourfulness(torch.from_numpy(noise.astype(dtype))).numpy() == pytest.approx(
            colourfulness(noise)
        )


@pytest.mark.parametrize(
    ("rgb", "value"), [((255, 0, 0), 0.3 * 285.09), ((0, 0, 255), 0.3 * 255), ((7, 7, 7), 0)]
)
def test_colourfulness_of_one_colour_is_its_distance_from_gray(rgb, value):
    assert colourfulness(array(np.full((3, 3, 3), rgb, np.uint8))).item() == pytest.approx(value, abs=0.01)
