"""OpenRaster files: zip, stack.xml, PNG layers, and the W3C's formula for blending."""

import io
import struct
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms
from skimage.color import rgb2lab

from knowhue.errors import ConfigError
from knowhue.images.image import Image, Origin
from knowhue.images.reading import read_image
from knowhue.images.writing import check_output_suffix, encode_layers
from knowhue.inference.colorizer import encode_colorized, write_colorized
from knowhue.inference.pixels import lightness, paint

LUMA = np.array([0.3, 0.59, 0.11])


def ramp(dtype=np.uint8, channels: int = 1) -> np.ndarray:
    top = np.iinfo(dtype).max
    values = np.linspace(0, top, 64)[None].repeat(48, 0)[..., None].repeat(channels, 2)
    return np.ascontiguousarray(values * [[[1, 0.9, 0.7][:channels]]]).astype(dtype)  # sepia, of three


def coloured(pixels: np.ndarray, strength: float = 30.0) -> np.ndarray:
    """Every hue at every lightness."""
    angle = np.linspace(0, 2 * np.pi, 24)[:, None].repeat(32, 1)
    chroma = strength * np.stack([np.cos(angle), np.sin(angle)], -1)
    return paint(pixels, chroma.astype(np.float32), np.full((24, 32), 50, np.float32))[0]


class Layers:
    """The content of an OpenRaster file, read without Knowhue."""

    def __init__(self, data: bytes) -> None:
        self.archive = zipfile.ZipFile(io.BytesIO(data))
        self.image = ElementTree.fromstring(self.archive.read("stack.xml"))
        (stack,) = self.image
        self.top, self.bottom = stack

    def png(self, name: str) -> Pillow.Image:
        return Pillow.open(io.BytesIO(self.archive.read(name)))

    def codes(self, name: str) -> np.ndarray:
        return np.asarray(self.png(name).convert("RGB")) / 255


def luma(colour: np.ndarray) -> np.ndarray:
    return colour @ LUMA


def clip_colour(colour: np.ndarray) -> np.ndarray:
    """ClipColor of Compositing and Blending Level 1, section 10.1.3."""
    light, low, high = luma(colour)[..., None], colour.min(-1, keepdims=True), colour.max(-1, keepdims=True)
    below = light + (colour - light) * light / np.where(low < 0, light - low, 1)
    clipped = np.where(low < 0, below, colour)
    above = light + (clipped - light) * (1 - light) / np.where(high > 1, high - light, 1)
    return np.where(high > 1, above, clipped)


def blend_color(backdrop: np.ndarray, source: np.ndarray) -> np.ndarray:
    """`color`: SetLum(Cs, Lum(Cb))."""
    return clip_colour(source + (luma(backdrop) - luma(source))[..., None])


def layers_of(pixels: np.ndarray, alpha: np.ndarray | None = None, origin: Origin = Origin()) -> Layers:  # noqa: B008
    original = Image(pixels, alpha, origin)
    return Layers(encode_colorized(original, original._replace(pixels=coloured(pixels)), ".ora")[0])


def test_the_file_is_laid_out_as_the_specification_says():
    found = layers_of(ramp(), origin=Origin(pixels_per_mm=(300 / 25.4, 150 / 25.4)))
    first, *others = found.archive.infolist()
    assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
    assert found.archive.read("mimetype") == b"image/openraster"
    assert first.header_offset == 0
    assert not first.extra  # so that `file` finds the type at byte 38
    assert {each.filename for each in others} == {
        "stack.xml", "data/photo.png", "data/colour.png", "mergedimage.png", "Thumbnails/thumbnail.png",
    }  # fmt: skip
    assert found.image.attrib == {"version": "0.0.6", "w": "64", "h": "48", "xres": "300", "yres": "150"}
    assert found.top.get("composite-op") == "svg:color"
    assert found.bottom.get("composite-op") == "svg:src-over"
    for layer in (found.top, found.bottom):
        assert found.png(layer.get("src", "")).size == (64, 48)
        assert (layer.get("x"), layer.get("y"), layer.get("opacity")) == ("0", "0", "1.0")


def test_a_thumbnail_is_256_pixels_long_at_most_and_never_enlarged():
    wide = np.full((100, 1000, 1), 90, np.uint8)
    assert layers_of(wide).png("Thumbnails/thumbnail.png").size == (256, 26)
    assert layers_of(ramp()).png("Thumbnails/thumbnail.png").size == (64, 48)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_layers_are_as_deep_as_the_photo_and_say_srgb(dtype):
    pixels = ramp(dtype)
    found = layers_of(pixels)
    for name in ("data/photo.png", "data/colour.png", "mergedimage.png"):
        data = found.archive.read(name)
        assert struct.unpack(">IIBB", data[16:26]) == (64, 48, 8 * pixels.itemsize, 2)  # 2 is RGB
        profile = ImageCms.ImageCmsProfile(io.BytesIO(found.png(name).info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
    assert (read_image(found.archive.read("data/photo.png")).pixels == pixels).all()
    above = read_image(found.archive.read("data/colour.png")).pixels.astype(int)
    assert np.abs(above - coloured(pixels)).max() <= (
        16 if pixels.itemsize == 2 else 0
    )  # of the profile's numbers
    assert found.png("Thumbnails/thumbnail.png").mode == "RGB"


def test_below_a_tinted_photo_is_gray_of_the_same_lightness():
    pixels = ramp(channels=3)
    below = layers_of(pixels).codes("data/photo.png")
    assert (below[..., 0] == below[..., 2]).all()
    assert np.abs(rgb2lab(below)[..., 0] - lightness(pixels)).max() <= 0.5


def test_flattened_by_the_w3cs_formula_it_is_nearly_what_is_written():
    found = layers_of(ramp())
    below, above = found.codes("data/photo.png"), found.codes("data/colour.png")
    flat = blend_color(below, above)
    assert np.abs(luma(flat) - luma(below)).max() < 1e-9
    off = rgb2lab(flat) - rgb2lab(found.codes("mergedimage.png"))
    # every hue at a chroma of 30 and every lightness; measured: 2.0, 9.1, 0.5
    assert np.linalg.norm(off, axis=-1).mean() < 2.5
    assert np.abs(off[..., 0]).max() < 10
    assert np.linalg.norm(off[..., 1:], axis=-1).mean() < 0.7


def test_a_normal_layer_gives_exactly_what_is_written():
    found = layers_of(ramp())
    assert (found.codes("data/colour.png") == found.codes("mergedimage.png")).all()


def test_transparency_stays_in_every_layer():
    alpha = (np.arange(48 * 64).reshape(48, 64) % 256).astype(np.uint8)
    found = layers_of(ramp(), alpha)
    for name in ("data/photo.png", "data/colour.png", "mergedimage.png"):
        assert (np.asarray(found.png(name).getchannel("A")) == alpha).all()


def test_what_layers_cannot_hold_is_said_of_them():
    image = Image(ramp(), origin=Origin(metadata=(("iptc-data", b"a caption"),)))
    assert encode_layers(image, image)[1] == ["IPTC was left out: a layer of .ora, a PNG, cannot hold that"]


def test_equal_layers_are_equal_files_whatever_the_clock_says():
    image = Image(ramp())
    assert encode_layers(image, image)[0] == encode_layers(image, image)[0]


def test_other_suffixes_are_written_as_ever_and_unknown_ones_name_layers_too(tmp_path):
    original = Image(ramp())
    made = Image(coloured(original.pixels))
    assert write_colorized(original, made, tmp_path / "a.png") == []
    assert (read_image(tmp_path / "a.png").pixels == made.pixels).all()
    with pytest.raises(ConfigError, match=r"\.ora"):
        check_output_suffix(".xyz")
