"""Every image file is read with its true lightness and written without loss, or refused in one line."""

import io
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import colour
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from icc_profiles import RGB as SPACES
from icc_profiles import dot_gain_curve, gray_profile, rgb_profile, rgb_to_xyz
from odd_files import ODD_FILES, XMP, after_start, chunk, exif, iptc, lab, pillow, tagged, tiff
from PIL import Image, ImageCms

from knowhue.errors import ConfigError, ImageError, KnowhueError, RunError
from knowhue.images.image import Image as OurImage
from knowhue.images.image import Origin, to_rgb8
from knowhue.images.profiles import profile_space, profile_tags, srgb_profile
from knowhue.images.reading import read_image
from knowhue.images.vips import array_of, load, shrink
from knowhue.images.writing import OUTPUT_SUFFIXES, encode_image, encode_with_notes, write_image
from knowhue.inference.colorizer import Colorized

READ = [name for name, odd in ODD_FILES.items() if not odd.error]
REFUSED = [name for name, odd in ODD_FILES.items() if odd.error]
LOSSLESS = (".png", ".tif", ".tiff")
NOISE = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)


@pytest.fixture
def place(tmp_path):
    """Put an odd file on the disk."""

    def put(name):
        path = tmp_path / f"image{ODD_FILES[name].suffix}"
        path.write_bytes(ODD_FILES[name].data())
        return path

    return put


def as_expected(image, odd):
    assert image.pixels.shape == (*odd.size, odd.channels)
    assert image.pixels.dtype == f"u{odd.bits // 8}"
    assert image.pixels.flags.c_contiguous
    assert (image.alpha is not None) == odd.alpha
    if odd.alpha:
        assert image.alpha.shape == odd.size
        assert image.alpha.dtype == image.pixels.dtype
    held = " ".join(name for name, _ in (*image.origin.metadata, *image.origin.texts))
    assert all(kept in held for kept in odd.keeps)
    if odd.dpi:
        assert np.multiply(image.origin.pixels_per_mm, 25.4) == pytest.approx(odd.dpi, abs=0.1)


def test_there_are_many_odd_files_as_many_as_is_said():
    assert len(READ) >= 60
    assert len(REFUSED) >= 30
    page = (Path(__file__).parents[2] / "docs" / "colorize.md").read_text(encoding="utf-8")
    assert f"Tested with {len(ODD_FILES)} unusual files" in page


@pytest.mark.parametrize("name", READ)
def test_odd_file_is_read_as_it_is(place, name):
    odd = ODD_FILES[name]
    image = read_image(place(name))
    as_expected(image, odd)
    assert len(image.origin.notes) == len(odd.notes)
    assert all(part in note for part, note in zip(odd.notes, image.origin.notes, strict=True))
    if odd.pixels is not None:
        assert np.array_equal(image.pixels, odd.pixels)


@pytest.mark.parametrize("name", READ)
def test_odd_file_is_written_as_it_came(place, tmp_path, name):
    odd = ODD_FILES[name]
    image = read_image(place(name))
    target = tmp_path / f"out{odd.suffix if odd.suffix in OUTPUT_SUFFIXES else '.png'}"
    assert write_image(image, target) == []
    again = read_image(target)
    as_expected(again, odd)
    assert not [note for note in again.origin.notes if "profile" in note]
    with Image.open(target) as opened:
        assert opened.getexif().get(0x0112, 1) == 1
    if odd.channels == 3:
        assert again.origin.profile == image.origin.profile
        assert (again.origin.profile is not None) == odd.profile
    if target.suffix in LOSSLESS and odd.profile and odd.pixels is None:
        assert np.abs(lightness(again.pixels) - lightness(image.pixels)).max() < TOLERANCE[odd.bits]
    elif target.suffix in LOSSLESS:
        assert np.array_equal(again.pixels, image.pixels)
        assert odd.alpha is False or np.array_equal(again.alpha, image.alpha)
    else:
        assert np.abs(lightness(again.pixels) - lightness(image.pixels)).mean() < 1.5


@pytest.mark.parametrize("name", REFUSED)
def test_odd_file_is_refused_in_one_line(place, name):
    path = place(name)
    with pytest.raises(KnowhueError) as caught:
        read_image(path)
    message = str(caught.value)
    assert ODD_FILES[name].error in message
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert not message.endswith(".")


def test_orientation_turns_the_pixels_once(place):
    upright = read_image(place("jpeg orientation 1")).pixels.astype(int)
    for k in range(2, 9):
        turned = read_image(place(f"jpeg orientation {k}")).pixels
        assert np.abs(turned - upright).mean() < 3
    assert np.abs(upright[::-1] - upright).mean() > 20
    assert np.abs(upright[:, ::-1] - upright).mean() > 10


# Lightness


def lightness(pixels):
    """L* of sRGB pixels by colour-science."""
    codes = pixels / np.iinfo(pixels.dtype).max
    linear = colour.models.eotf_sRGB(codes)
    luminance = linear[..., 0] if pixels.shape[2] == 1 else linear @ [0.212671, 0.715160, 0.072169]
    return l_star(luminance)


def l_star(luminance):
    return colour.lightness(luminance.clip(0, 1) * 100, method="CIE 1976")


TOLERANCE = {8: 0.5, 16: 0.05}
INTERPRETATION = {(1, 8): "b-w", (1, 16): "grey16", (3, 8): "srgb", (3, 16): "rgb16"}


def of_all_codes(channels, bits):
    """Many colours, the corners of the cube among them: (1, N, channels)."""
    steps = np.linspace(0, 1, 11 if channels == 3 else 256)
    cube = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), -1).reshape(1, -1, channels)
    return (cube * ((1 << bits) - 1)).round().astype(f"u{bits // 8}")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("space", list(SPACES))
def test_lightness_of_a_wide_gamut_is_the_true_one(space, bits):
    codes = of_all_codes(3, bits)
    data = tagged(codes, INTERPRETATION[3, bits], ".png", rgb_profile(space))
    _, white, gamma = SPACES[space]
    xyz = (codes / ((1 << bits) - 1)) ** gamma @ rgb_to_xyz(space).T
    if white == "D50":
        to_d65 = colour.adaptation.matrix_chromatic_adaptation_VonKries(
            colour.xy_to_XYZ((0.3457, 0.3585)), colour.xy_to_XYZ((0.3127, 0.3290)), "Bradford"
        )
        xyz = xyz @ to_d65.T
    read = read_image(data)
    assert read.pixels.dtype == codes.dtype
    assert np.abs(lightness(read.pixels) - l_star(xyz[..., 1])).max() < TOLERANCE[bits]


@pytest.mark.parametrize("space", list(SPACES))
def test_lightness_stays_when_written_in_its_own_profile(space):
    codes = of_all_codes(3, 16)
    read = read_image(tagged(codes, "rgb16", ".png", rgb_profile(space)))
    again = read_image(encode_image(read, ".tif"))
    assert again.origin.profile == rgb_profile(space)
    assert np.abs(lightness(again.pixels) - lightness(read.pixels)).max() < 0.05
    assert np.abs(again.pixels.astype(int) - read.pixels).mean() < 65535 * 0.002


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("curve", ["gamma 1.8", "gamma 2.2", "dot gain"])
def test_lightness_of_gray_follows_its_curve(curve, bits):
    codes = of_all_codes(1, bits)
    share = codes[..., 0] / ((1 << bits) - 1)
    if curve == "dot gain":
        table = dot_gain_curve()
        profile, luminance = gray_profile(curve=table), np.interp(share, np.linspace(0, 1, 256), table)
    else:
        gamma = round(float(curve.split()[1]) * 256) / 256
        profile, luminance = gray_profile(gamma), share**gamma
    read = read_image(tagged(codes, INTERPRETATION[1, bits], ".tif", profile))
    assert read.pixels.shape == codes.shape
    assert np.abs(lightness(read.pixels) - l_star(luminance)).max() < TOLERANCE[bits]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_a_gray_profile_is_read_as_littlecms_reads_it(kind):
    gray = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    profile = gray_profile(curve=dot_gain_curve())
    data = pillow(gray, kind, icc_profile=profile, **({"quality": 100} if kind == "JPEG" else {}))
    wanted = ImageCms.profileToProfile(
        Image.fromarray(gray), as_profile(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert wanted is not None
    found = read_image(data).pixels[..., 0].astype(int)
    assert np.abs(found - np.asarray(wanted)[..., 1]).max() <= (3 if kind == "JPEG" else 1)
    assert np.abs(found - gray).max() > 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_associated_transparency_is_read_as_the_other_kind(channels, bits):
    top = (1 << bits) - 1
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, top + 1, (9, 14, channels)).astype(float)
    alpha = generator.integers(top // 5, top + 1, (9, 14, 1)).astype(float)
    dtype, photometric = f"u{bits // 8}", "rgb" if channels == 3 else "minisblack"
    read = [
        read_image(
            tiff(
                np.dstack([colours, alpha]).round().astype(dtype),
                photometric=photometric,
                extrasamples=[kind],
                planarconfig="contig",
            )
        )
        for colours, kind in ((pixels, "unassalpha"), (pixels * alpha / top, "assocalpha"))
    ]
    assert np.array_equal(read[0].pixels, pixels.astype(dtype))
    assert np.abs(read[1].pixels.astype(int) - read[0].pixels).max() <= 3
    assert np.array_equal(read[1].alpha, read[0].alpha)


def test_cmyk_is_read_as_its_profile_says():
    steps = np.linspace(0, 255, 5).round().astype(np.uint8)
    codes = np.stack(np.meshgrid(*[steps] * 4, indexing="ij"), -1).reshape(1, -1, 4)
    image = Image.merge("CMYK", [Image.fromarray(plane.copy()) for plane in np.moveaxis(codes, 2, 0)])
    read = read_image(pillow(image, "TIFF", icc_profile=cmyk_profile()))
    reference = ImageCms.profileToProfile(
        image, as_profile(cmyk_profile()), ImageCms.createProfile("LAB"), ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="LAB",
    )  # fmt: skip
    wanted = np.asarray(reference)[..., 0] * (100 / 255)
    found = lightness(read.pixels)
    chroma = np.hypot(*(np.asarray(reference)[..., k].astype(np.int8).astype(float) for k in (1, 2)))
    near_gray = chroma < 8  # D50 and D65 agree on the lightness of gray alone
    assert near_gray.sum() > 20
    assert np.abs(found - wanted)[near_gray].max() < 1.2
    assert read.origin.profile == srgb_profile()


def cmyk_profile():
    from knowhue.images.vips import built_in_profile

    return built_in_profile("cmyk")


def as_profile(data):
    import io

    return ImageCms.ImageCmsProfile(io.BytesIO(data))


@pytest.mark.parametrize("bits", [8, 16])
def test_lab_keeps_its_own_lightness(bits):
    read = read_image(lab(bits))
    wanted = np.linspace(10, 90, read.pixels.shape[1])
    assert np.abs(lightness(read.pixels) - wanted).max() < TOLERANCE[bits]


# Writing


def full_image():
    """Everything at once: 16 bits, transparency, metadata, resolution."""
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 65536, (9, 14, 3), dtype=np.uint16)
    metadata = (
        ("exif-data", b"Exif\0\0" + exif(6).tobytes().removeprefix(b"Exif\0\0")),
        ("xmp-data", XMP),
        ("iptc-data", iptc()[4:]),
    )
    dots = 300 / 25.4
    origin = Origin(".tif", srgb_profile(), metadata, (("Title", "hello"),), (dots, dots), bits=16)
    return OurImage(pixels, generator.integers(0, 65536, (9, 14), dtype=np.uint16), origin)


LOST = {
    ".jpg": ("8 bits", "over white", "the text Title was left out"),
    ".png": ("IPTC",),
    ".tif": ("the text Title was left out",),
    ".webp": ("8 bits", "IPTC", "the text Title was left out"),
    ".avif": ("12 bits", "IPTC", "the text Title was left out"),
}


@pytest.mark.parametrize("suffix", list(LOST))
def test_what_a_kind_of_file_cannot_hold_is_said_and_the_rest_is_there(tmp_path, suffix):
    image = full_image()
    target = tmp_path / f"image{suffix}"
    notes = write_image(image, target)
    assert len(notes) == len(LOST[suffix])
    assert all(part in note for part, note in zip(LOST[suffix], notes, strict=True))
    with Image.open(target) as opened:
        found = opened.getexif()
        assert found[0x010F] == "Maker"
        assert found.get(0x0112, 1) == 1
        assert found.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        assert found.get_ifd(0x8825)[1] == "N"
        assert found.get_ifd(1) == {}  # no thumbnail of the gray image
    again = read_image(target)
    metadata = dict(again.origin.metadata)
    assert metadata["xmp-data"] == XMP.replace(b'Orientation="6"', b'Orientation="1"')
    assert again.pixels.dtype == (np.uint8 if suffix in (".jpg", ".webp") else np.uint16)
    assert again.origin.profile == srgb_profile()
    if suffix in LOSSLESS:
        assert np.array_equal(again.pixels, image.pixels)
        assert np.array_equal(again.alpha, image.alpha)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_the_resolution_is_the_images_whatever_its_exif_says(suffix):
    found = exif()
    found.update({0x011A: 25.4, 0x011B: 25.4, 0x0128: 2})
    metadata = (("exif-data", found.tobytes()),)
    image = OurImage(NOISE, None, Origin(metadata=metadata, pixels_per_mm=(10.0, 20.0)))
    assert read_image(encode_image(image, suffix)).origin.pixels_per_mm == pytest.approx((10, 20), rel=1e-3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "JPEG2000"])
@pytest.mark.parametrize(("unit", "dpi"), [(2, (300, 150)), (3, (762, 381)), (1, (144, 72))])
def test_a_resolution_that_exif_alone_tells_is_kept(kind: str, unit: int, dpi: tuple[int, int]):
    found = exif(6)
    found.update({0x011A: 300.0, 0x011B: 150.0, 0x0128: unit})
    data = pillow(NOISE, kind, **({} if kind == "JPEG2000" else {"exif": found}))
    if kind == "JPEG2000":
        body = b"uuidJpgTiffExif->JP2" + found.tobytes()[6:]
        place = data.index(b"jp2c") - 4
        data = data[:place] + (len(body) + 4).to_bytes(4, "big") + body + data[place:]
    image = read_image(data)
    shown = dpi if kind == "AVIF" else dpi[::-1]  # an AVIF has an orientation of its own
    for each in (image, read_image(encode_image(image, ".png"))):
        assert np.multiply(each.origin.pixels_per_mm, 25.4) == pytest.approx(shown, rel=1e-3)


def test_a_resolution_beyond_all_bounds_is_none():
    density = chunk(b"pHYs", struct.pack(">IIB", 2**31, 2**31, 1))
    data = pillow(NOISE, "PNG")
    image = read_image(data[:33] + density + data[33:])
    assert image.origin.pixels_per_mm is None


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
def test_a_resolution_that_nobody_knows_is_not_made_up(suffix: str):
    data = encode_image(OurImage.of(NOISE), suffix)
    assert read_image(data).origin.pixels_per_mm is None
    with Image.open(io.BytesIO(data)) as opened:
        assert "exif" not in opened.info
        assert opened.info.get("dpi", 1) == 1  # a TIFF must give a number, here without a unit
        assert opened.info.get("jfif_unit", 0) == 0
        assert suffix not in (".tif", ".tiff") or opened.tag_v2[296] == 1


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
@pytest.mark.parametrize("dpi", [(300.0, 150.0), (299.72, 254.0), (200_000.0, 100_000.0)])
def test_a_resolution_is_kept_without_exif_where_there_is_another_place(
    suffix: str, dpi: tuple[float, float]
):
    data = encode_image(OurImage(NOISE, None, Origin(pixels_per_mm=(dpi[0] / 25.4, dpi[1] / 25.4))), suffix)
    found = read_image(data).origin.pixels_per_mm
    assert found is not None
    assert np.multiply(found, 25.4) == pytest.approx(dpi, rel=1e-4)
    with Image.open(io.BytesIO(data)) as opened:
        needs_exif = suffix in (".webp", ".avif") or (suffix in (".jpg", ".jpeg") and max(dpi) > 170_000)
        assert ("exif" in opened.info) == needs_exif


def test_of_texts_those_are_named_that_are_lost():
    texts = {"Comment": "hello", "Title": "Anna", "Creation Time": "1931", "Description": "at sea"}
    image = OurImage(NOISE, None, Origin(texts=tuple(texts.items())))
    lost = "the texts Title, Creation Time, Description were left out: {} cannot hold that"
    data, notes = encode_with_notes(image, ".jpg")
    assert notes == [lost.format(".jpg")]
    assert b"hello" in data
    assert encode_with_notes(image, ".webp")[1] == [
        "comments were left out: .webp cannot hold that",
        lost.format(".webp"),
    ]
    many = tuple((f"{'key' * 20}{place}", "text") for place in range(200))
    (note,) = encode_with_notes(OurImage(NOISE, None, Origin(texts=many)), ".webp")[1]
    assert note.endswith("and 194 more were left out: .webp cannot hold that")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_transparency_that_no_pixel_makes_use_of_is_not_missed(dtype):
    pixels = NOISE.astype(dtype)
    alpha = np.full(pixels.shape[:2], np.iinfo(dtype).max, dtype)
    notes = encode_with_notes(OurImage(pixels, alpha), ".jpg")[1]
    assert not [note for note in notes if "transparency" in note]
    alpha[0, 0] -= 1
    notes = encode_with_notes(OurImage(pixels, alpha), ".jpg")[1]
    assert [note for note in notes if "put over white" in note]


def test_iptc_goes_from_jpeg_to_tiff_and_back():
    jpeg = after_start(pillow(NOISE, "JPEG"), iptc())
    through = read_image(encode_image(read_image(jpeg), ".tif"))
    fields = dict(through.origin.metadata)
    assert fields["iptc-data"] == b"\x1c\x02\x78\0\x07caption"
    back = read_image(encode_image(through, ".jpg"))
    assert b"caption" in dict(back.origin.metadata)["iptc-data"]
    alone = through._replace(origin=through.origin._replace(metadata=(("iptc-data", fields["iptc-data"]),)))
    assert dict(read_image(encode_image(alone, ".jpg")).origin.metadata)["iptc-data"] == iptc()[4:]


def test_metadata_too_long_for_jpeg_are_named():
    image = OurImage(NOISE, None, Origin(metadata=(("xmp-data", b"x" * 70_000),)))
    target_notes = write_notes(image, ".jpg")
    assert target_notes == ["XMP was left out: .jpg holds up to 65,500 bytes of it, not 70,000"]
    assert write_notes(image, ".png") == []
    image = OurImage(NOISE, None, Origin(texts=(("Comment", "ß" * 33_000),)))
    assert write_notes(image, ".jpg") == [
        "comments were left out: .jpg holds up to 65,500 bytes of it, not 66,000"
    ]


def write_notes(image, suffix):
    return encode_with_notes(image, suffix)[1]


@settings(max_examples=25, deadline=None)
@given(
    arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])),
    ),
    st.sampled_from(LOSSLESS),
)
def test_any_pixels_come_back_from_a_lossless_kind(pixels, suffix):
    assert np.array_equal(read_image(encode_image(OurImage.of(pixels), suffix)).pixels, pixels)


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(1))))
def test_sixteen_bits_are_rounded_to_eight(pixels):
    eight = read_image(encode_image(OurImage.of(pixels), ".jpg", quality=100)).pixels
    assert np.abs(eight * 257.0 - pixels).max() <= 257 * 2.5


def test_transparency_lies_over_white_in_jpeg():
    pixels = np.full((16, 16, 3), 40, np.uint8)
    alpha = np.zeros((16, 16), np.uint8)
    alpha[8:] = 255
    again = read_image(encode_image(OurImage(pixels, alpha), ".jpg")).pixels
    assert (again[:7] > 250).all()
    assert np.abs(again[9:].astype(int) - 40).max() < 5


def test_quality_says_how_large_a_file_is():
    sizes = [len(encode_image(OurImage.of(NOISE), ".jpg", quality=quality)) for quality in (30, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(encode_image(OurImage.of(NOISE), ".jpg"))


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_colour_is_not_subsampled(suffix):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 40, 40), (40, 90, 200)
    again = read_image(encode_image(OurImage.of(stripes), suffix)).pixels.astype(int)
    assert np.abs(again - stripes).mean() < 12


@pytest.mark.parametrize(
    ("suffix", "quality", "shape", "message"),
    [
        (".gif", None, (2, 2, 3), r"should end in one of \.jpg, .* Found `\.gif`"),
        ("", None, (2, 2, 3), "Found no suffix"),
        (".jpg", 0, (2, 2, 3), "`quality` should be from 1 to 100"),
        (".webp", None, (1, 16_384, 3), r"at most 16,383 pixels per side. Found 16384 x 1"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, suffix, quality, shape, message):
    with pytest.raises(ConfigError, match=message):
        write_image(OurImage.of(np.zeros(shape, np.uint8)), tmp_path / f"out{suffix}", quality=quality)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            Colorized(OurImage.of(NOISE), None),
            r"Found .* of the type `Colorized`\. Pass its `image`",
        ),
        (
            NOISE,
            r"Found .* of the type `ndarray`\. Make an `Image` by `read_image`, or of pixels by `.*Image\.of",
        ),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_pass(tmp_path, made, message):
    with pytest.raises(TypeError, match=r"`image` should be an `Image`\. " + message):
        write_image(made, tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "out.png"
    target.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("knowhue.storage.os.fsync", full)
    with pytest.raises(RunError, match="No space left"):
        write_image(OurImage.of(NOISE), target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


# Limits, names, threads


def test_only_of_a_file_is_said_that_python_reads_larger_images(tmp_path):
    """Bytes may come by HTTP, and a user of the browser can only make the image smaller."""
    (tmp_path / "large.png").write_bytes(pillow(NOISE, "PNG"))
    with pytest.raises(ImageError, match=r"619; make it smaller$"):
        read_image((tmp_path / "large.png").read_bytes(), max_pixels=619)
    with pytest.raises(
        ImageError, match=r"619; make it smaller, or read it in Python with a larger `max_pixels`$"
    ):
        read_image(tmp_path / "large.png", max_pixels=619)


def test_limit_is_checked_before_decoding():
    data = pillow(NOISE, "PNG")[:60]  # header alone
    with pytest.raises(ImageError, match="31 x 20 = 620 pixels, more than 619;"):
        read_image(data, max_pixels=619)
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_image(data, max_pixels=620)


def test_of_an_image_that_ends_in_its_header_the_decoder_says_why():
    with pytest.raises(ImageError, match=r"damaged or cut short \(premature end of JPEG image\)"):
        read_image(pillow(NOISE, "JPEG")[:200])


@pytest.mark.parametrize("suffix", OUTPUT_SUFFIXES)
@pytest.mark.parametrize("bits", [8, 16])
def test_small_images_are_decoded_as_large_ones_are(monkeypatch, suffix, bits):
    """Small images are decoded in this thread, larger ones in those of libvips; both must detect damage."""
    image = OurImage.of(NOISE if bits == 8 else NOISE.astype(np.uint16) * 257)
    data = encode_image(image, suffix)
    found, said = [], []
    for limit in (0, NOISE.size):
        monkeypatch.setattr("knowhue.images.vips._SMALL", limit)
        found.append(read_image(data).pixels)
        with pytest.raises(ImageError) as error:
            read_image(data[: len(data) * 2 // 3])
        said.append(str(error.value))
    assert np.array_equal(*found)
    assert said[0] == said[1]


def test_bytes_are_called_by_the_name_given():
    with pytest.raises(ImageError, match=r"^upload 7: it is an empty file"):
        read_image(b"", name="upload 7")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ImageError, match="it is a folder; name a file in it"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"nothing\.jpg: no such file or directory"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(ImageError, match=r"x\.jpg: it cannot be read: File name too long$"):
        read_image(tmp_path / f"{'x' * 5000}.jpg")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in the file system")
def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="a device or a pipe"):
        read_image(tmp_path / "pipe.jpg")


def test_names_that_are_no_text_are_read(tmp_path):
    path = tmp_path / b"caf\xe9.png".decode(errors="surrogateescape")
    path.write_bytes(pillow(NOISE, "PNG"))
    assert np.array_equal(read_image(path).pixels, NOISE)


def test_a_changed_file_is_read_anew(tmp_path):
    path = tmp_path / "image.png"
    for pixels in (NOISE, NOISE[::-1].copy()):
        path.write_bytes(pillow(pixels, "PNG"))
        assert np.array_equal(read_image(path).pixels, pixels)


def test_threads_read_and_write_what_one_would():
    data = [ODD_FILES[name].data() for name in ("adobe", "png rgba 16", "tiff lab 16", "jpeg cmyk")] * 6

    def through(each):
        return encode_image(read_image(each), ".png")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(through, data)) == [through(each) for each in data[:4]] * 6


def test_an_image_that_is_yet_to_be_decoded_holds_its_bytes():
    data = pillow(NOISE, "PNG")
    source = io.BytesIO(data)
    before = sys.getrefcount(data)
    image = load("pngload", source).copy()
    source.close()  # drops its own reference to the bytes
    assert sys.getrefcount(data) == before
    assert np.array_equal(array_of(image), NOISE)


def test_heic_is_read_where_its_decoder_is_installed(monkeypatch):
    decoded = []
    opened = SimpleNamespace(size=(31, 20), to_pillow=lambda: decoded.append(1) or Image.fromarray(NOISE))
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(open_heif=lambda _: opened))
    image = read_image(ODD_FILES["heic"].data())
    assert image.origin.suffix == ".heic"
    assert np.array_equal(image.pixels, NOISE)
    with pytest.raises(ImageError, match="31 x 20 = 620 pixels, more than 619"):
        read_image(ODD_FILES["heic"].data(), max_pixels=619)
    assert len(decoded) == 1  # the too large one is refused by its header


def test_images_for_training_have_three_channels_of_8_bits_over_white():
    codes = np.array([[[0], [257 * 100], [65535]]], np.uint16)
    assert to_rgb8(OurImage.of(codes)).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]
    half = OurImage(np.zeros((1, 2, 3), np.uint8), np.array([[255, 51]], np.uint8))
    assert to_rgb8(half).tolist() == [[[0] * 3, [204] * 3]]


@pytest.mark.parametrize(
    "spoil", ["short", "no mark", "too many tags", "a tag beyond the end", "falling", "unknown curve"]
)
def test_a_damaged_profile_of_curves_is_no_space(spoil):
    profile = bytearray(gray_profile(2.2))
    assert profile_space(bytes(profile)) is not None
    tags = profile_tags(bytes(profile))
    start = bytes(profile).index(tags[b"kTRC"])
    if spoil == "short":
        del profile[120:]
    elif spoil == "no mark":
        profile[36:40] = b"xxxx"
    elif spoil == "too many tags":
        profile[128:132] = (10**6).to_bytes(4, "big")
    elif spoil == "a tag beyond the end":
        profile[140:144] = (10**6).to_bytes(4, "big")
    elif spoil == "falling":
        profile = bytearray(gray_profile(curve=[1, 0.5, 0]))
    else:
        profile[start : start + 4] = b"none"
    assert profile_space(bytes(profile)) is None


def test_a_float_tiff_says_what_was_cut():
    image = read_image(tiff(np.array([[-0.5, 0.5, 1.0]], np.float32)))
    assert "−0.5 to 1" in image.origin.notes[1]
    assert image.pixels.ravel().tolist() == [0, 32768, 65535]


@pytest.mark.parametrize("top", [1, 255])
def test_a_float_tiff_that_resampling_made_overshoot_keeps_its_range(top):
    image = read_image(tiff(np.array([[0, 0.5, 1.02]], np.float32) * np.float32(top)))
    assert image.pixels.ravel().tolist() == [0, 32768, 65535]
    assert f"0 to {top}, sRGB" in image.origin.notes[0]
    assert f"from 0 to {1.02 * top:g} were clipped" in image.origin.notes[1]


def test_one_file_that_many_write_at_once_is_always_one_whole_image_of_theirs(tmp_path):
    """The reason why a single photo needs no lock."""
    target = tmp_path / "photo.png"
    images = [OurImage.of(np.full((64, 96, 3), shade, np.uint8)) for shade in range(0, 250, 50)]
    with ThreadPoolExecutor(len(images)) as pool:
        writing = [pool.submit(write_image, image, target) for image in images * 6]
        seen = set()
        while not all(each.done() for each in writing):
            if target.exists():
                seen |= {tuple(np.unique(read_image(target).pixels))}
    assert [each.result() for each in writing] == [[]] * len(writing)
    assert seen <= {(shade,) for shade in range(0, 250, 50)}
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


# Resizing


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("height", "width"), [(96, 144), (31, 200), (33, 48), (300, 450)])
def test_resizes_as_pillow_did_for_training(dtype, height, width):
    generator = np.random.default_rng(0)
    smooth = generator.integers(0, 256, (15, 22, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(smooth).resize((1117, 763), Image.Resampling.BICUBIC)).astype(int)
    large = (large + generator.normal(0, 8, large.shape)).clip(0, 255).astype(np.uint8)
    reference = np.asarray(Image.fromarray(large).resize((width, height), Image.Resampling.LANCZOS)) / 255
    pixels = large if dtype == np.uint8 else large.astype(np.uint16) * 257
    found = shrink(pixels, height, width)
    assert found.shape == (height, width, 3)
    assert found.dtype == np.float32
    assert np.abs(found - reference).mean() < 0.4 / 255
    assert np.abs(found - reference).max() < 2.5 / 255


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (1, 5000, 3), (5000, 2, 1)])
def test_images_of_any_shape_are_resized(shape):
    assert shrink(np.full(shape, 51, np.uint8), 40, 50) == pytest.approx(0.2, abs=1e-6)
