"""Every image file becomes 8-bit sRGB with the pixels that `colorize` sees, or an error that says why not."""

import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from icc_profiles import gray_profile, rgb_profile
from odd_files import CMYK, GRAY, GRAY16, ODD_FILES, RGB, RGB16, RGBA, pillow, preview_first, tagged, tiff
from PIL import Image, ImageCms
from test_png_colour import ADOBE, chrm, gama, said

from knowhue.data.items import read_training_image
from knowhue.errors import ImageError, KnowhueError
from knowhue.images.reading import MAX_PIXELS, read_image

RED, BLUE = (200, 30, 20), (20, 40, 190)


@pytest.fixture
def read(tmp_path):
    """Save an image as a file of some name and read it back as an array."""

    def write_and_read(image, name="image.png", **options):
        image.save(tmp_path / name, **options)
        decoded = read_training_image(tmp_path / name)
        assert decoded.mode == "RGB"
        return np.asarray(decoded)

    return write_and_read


def flat(colour, size=(4, 3), mode="RGB"):
    return Image.new(mode, size, colour)


def test_plain_image_is_unchanged(read):
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(read(Image.fromarray(noise)), noise)


def test_sixteen_bit_gray_keeps_its_range(read):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    out = read(Image.fromarray(ramp))
    assert np.array_equal(out[..., 0].ravel(), np.arange(256))
    assert np.array_equal(out[..., 0], out[..., 2])


@pytest.mark.parametrize("top", [1.0, 65535.0])
def test_float_gray_keeps_its_range(read, top):
    ramp = np.linspace(0, top, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(read(Image.fromarray(ramp), "image.tif")[..., 1].ravel(), np.arange(256))


def test_cmyk_without_a_profile_is_a_common_print(read):
    out = read(flat((0, 255, 255, 0), mode="CMYK"), "image.jpg", quality=95)
    assert np.abs(out.astype(int) - (237, 28, 36)).max() < 12  # red of SWOP, the common offset print


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "LAB", "RGBX"])
def test_every_mode_gives_rgb(tmp_path, mode):
    path = tmp_path / ("image.jpg" if mode == "YCbCr" else "image.tif")  # Pillow 12 truncates YCbCr TIFFs
    try:
        flat(RED).convert(mode).save(path)
    except (OSError, ValueError):
        pytest.skip(f"Pillow does not write {mode} as TIFF")
    assert np.asarray(read_training_image(path)).shape == (3, 4, 3)


def test_palette(read):
    assert (read(flat(RED).convert("P", palette=Image.Palette.ADAPTIVE)) == RED).all()


def test_palette_with_a_transparent_colour(read):
    image = flat(0, mode="P")
    image.putpalette([*RED, *BLUE])
    image.putpixel((0, 0), 1)
    out = read(image, transparency=1)
    assert tuple(out[0, 0]) == (255, 255, 255)
    assert tuple(out[1, 1]) == RED


@pytest.mark.parametrize(("alpha", "expected"), [(255, RED), (0, (255, 255, 255))])
def test_transparency_lies_over_white(read, alpha, expected):
    assert (read(flat((*RED, alpha), mode="RGBA")) == expected).all()


def test_half_transparent_gray(read):
    assert np.abs(read(flat((0, 128), mode="LA")).astype(int) - 127).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(read, orientation):
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0] = RED
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(turned[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read(stored, exif=exif), upright)


def test_first_frame_of_an_animation(read):
    frames = [flat(RED), flat(BLUE)]
    out = read(frames[0], "image.gif", save_all=True, append_images=frames[1:])
    assert np.abs(out.astype(int) - RED).max() < 4


def test_one_pixel(read):
    assert read(flat(BLUE, (1, 1))).tolist() == [[list(BLUE)]]


def test_srgb_profile_changes_nothing(read):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    out = read(Image.fromarray(noise), icc_profile=profile)
    assert np.abs(out.astype(int) - noise).max() <= 1


def test_another_profile_is_converted(read):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {profile[i : i + 4].decode("latin1"): i for i in range(132, 132 + 12 * 20, 12)}
    red, green = (struct.unpack_from(">I", profile, tags[name] + 4)[0] for name in ("rXYZ", "gXYZ"))
    first, second = bytes(profile[red : red + 20]), bytes(profile[green : green + 20])
    profile[red : red + 20], profile[green : green + 20] = second, first  # swaps red and green
    out = read(flat(RED), icc_profile=bytes(profile))
    assert np.abs(out[0, 0].astype(int) - (RED[1], RED[0], RED[2])).max() <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_profile_that_does_not_fit_is_ignored(read, mode):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain = flat(RED).convert(mode)
    assert np.array_equal(read(plain, "image.tif", icc_profile=profile), read(plain, "plain.tif"))


def test_damaged_profile_is_ignored(read):
    assert (read(flat(RED), icc_profile=b"no profile") == RED).all()


def png_header(width, height):
    """A PNG that declares a size and has no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "unreadable: it is an empty file"),
        (b"this is text\n" * 50, "unreadable: it is none of JPEG"),
        (png_header(20_000, 20_000), "more than 200,000,000"),
        (png_header(100, 100), "unreadable: "),
        (b"\x89PNG\r\n\x1a\n", "unreadable: "),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, content, message):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_training_image(path)


def test_the_limit_is_the_one_that_is_named(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(png_header(1_000, MAX_PIXELS // 1_000))
    with pytest.raises(ImageError, match=r"^unreadable: "):
        read_training_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif"])
def test_truncated_file_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match="unreadable: "):
        read_training_image(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"^unreadable: no such file or directory"):
        read_training_image(tmp_path / "nothing.png")


FILES = {
    "rgb": partial(pillow, RGB, "PNG"),
    "gray": partial(pillow, GRAY, "PNG"),
    "jpeg": partial(pillow, RGB, "JPEG"),
    "gray 16": partial(said, GRAY16),
    "linear": lambda: said(RGB, gama(1)),
    "linear gray": lambda: said(GRAY, gama(1)),
    "linear gray 16": lambda: said(GRAY16, gama(1)),
    "gamma 1.8": lambda: said(RGB, gama(1 / 1.8)),
    "gamma 1.8, palette": lambda: with_gamma(pillow(Image.fromarray(RGB).quantize(9), "PNG"), 1 / 1.8),
    "gamma 2.2": lambda: said(RGB, gama(0.45455)),
    "adobe": partial(pillow, RGB, "PNG", icc_profile=rgb_profile("adobe")),
    "gray profile": partial(pillow, GRAY, "PNG", icc_profile=gray_profile(1.8)),
    "rgb 16": partial(said, RGB16),
    "gray profile 16": lambda: tagged(GRAY16, "grey16", ".png", gray_profile(1.8)),
    "tiff rgb 16": lambda: tiff(RGB16, photometric="rgb"),
    "linear rgb 16, dark": lambda: said(RGB16 // 16, gama(1)),
    "prophoto": partial(pillow, RGB, "PNG", icc_profile=rgb_profile("prophoto")),
    "prophoto 16": lambda: tagged(RGB16, "rgb16", ".png", rgb_profile("prophoto")),
    "primaries": lambda: said(RGB, gama(0.45455), chrm(*ADOBE)),
    "cmyk": partial(pillow, CMYK, "TIFF"),
    "cmyk jpeg": ODD_FILES["jpeg cmyk"].data,
    "cmyk profile": ODD_FILES["cmyk profile"].data,
    "preview first": preview_first,
}


def with_gamma(png: bytes, gamma: float) -> bytes:
    return png[:33] + gama(gamma) + png[33:]


def difference(folder: Path, data: bytes) -> float:
    """The largest difference of 8-bit codes."""
    path = folder / "image"
    path.write_bytes(data)
    colorized = read_image(path).pixels
    eight = colorized if colorized.dtype == np.uint8 else (colorized / 257).round()
    trained = np.asarray(read_training_image(path)).astype(float)
    if trained.shape[:2] != eight.shape[:2]:
        return np.inf
    return float(np.abs(trained - eight).max())


@pytest.mark.parametrize("name", list(FILES))
def test_training_sees_what_colorize_sees(tmp_path: Path, name: str):
    assert difference(tmp_path, FILES[name]()) == 0


def test_transparent_linear_pixels_lie_over_white(tmp_path: Path):
    (tmp_path / "image").write_bytes(said(RGBA, gama(1)))
    read = read_image(tmp_path / "image")
    assert read.alpha is not None
    share = read.alpha[..., None] / 255
    wanted = read.pixels * share + 255 * (1 - share)
    assert np.abs(np.asarray(read_training_image(tmp_path / "image")) - wanted).max() <= 1


def test_training_refuses_the_raw_files_that_colorize_refuses(tmp_path: Path):
    (tmp_path / "raw.dng").write_bytes(preview_first(raw=True))
    with pytest.raises(KnowhueError):
        read_training_image(tmp_path / "raw.dng")
