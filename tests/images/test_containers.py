"""Metadata of JPEG, GIF, BMP and JPEG 2000 that decoders do not read."""

import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from icc_profiles import gray_profile, rgb_profile
from odd_files import GRAY, RGB, XMP, after_start, chunk, exif, pillow
from PIL import Image, ImageCms

from knowhue.errors import ImageError
from knowhue.images.containers import jfif_segment
from knowhue.images.reading import read_image, weigh_image
from knowhue.images.writing import encode_image, encode_with_notes

PROFILE = rgb_profile("prophoto")
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def in_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """sRGB codes of pixels with a profile, converted by LittleCMS."""
    image = Image.fromarray(pixels)
    source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(
        image, source, srgb, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    return np.asarray(found).astype(int)


def bmp(pixels: np.ndarray, profile: bytes) -> bytes:
    """A BMP of version 5 with a profile after its pixels."""
    height, width = pixels.shape[:2]
    rows = b"".join(row[:, ::-1].tobytes().ljust((3 * width + 3) // 4 * 4, b"\0") for row in pixels[::-1])
    head = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(rows), 2835, 2835, 0, 0)
    head = (head + bytes(16) + b"DEBM").ljust(108, b"\0")
    head += struct.pack("<4I", 4, 124 + len(rows), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(head + rows + profile), 0, 0, 138) + head + rows + profile


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def jpeg_2000(pixels: np.ndarray, profile: bytes = b"", *more: bytes) -> bytes:
    """A JP2 with a profile in place of its enumerated colour space, and further boxes before its codestream."""
    data = pillow(pixels, "JPEG2000", irreversible=False)
    at = data.index(b"jp2h") - 4
    head = data[at : at + struct.unpack_from(">I", data, at)[0]]
    colours = head.index(b"colr") - 4
    kept = head[8:colours] if profile else head[8:]
    own = box(b"colr", b"\2\0\0" + profile) if profile else b""
    return data[:at] + box(b"jp2h", kept + own) + b"".join(more) + data[at + len(head) :]


def app11(body: bytes) -> bytes:
    """A segment of JPEG XT with part of a box."""
    return b"\xff\xeb" + struct.pack(">H", 10 + len(body)) + b"JP\0\1\0\0\0\1" + body


@pytest.mark.parametrize("made", [bmp, jpeg_2000])
def test_a_profile_is_honoured(made: Any):
    read = read_image(made(RGB, PROFILE))
    assert np.abs(read.pixels - in_srgb(RGB, PROFILE)).mean() < 0.5
    assert read.origin.profile == PROFILE


def test_a_gray_profile_of_jpeg_2000_is_honoured():
    profile = gray_profile(1.0)
    read = read_image(jpeg_2000(GRAY, profile))
    assert np.abs(read.pixels[..., 0] - in_srgb(GRAY, profile)[..., 1]).mean() < 0.5


def test_only_the_head_of_version_5_has_a_profile():
    data = bytearray(bmp(RGB, PROFILE))
    data[14:18] = struct.pack("<I", 108)  # version 4, whose header ends before the profile
    assert read_image(bytes(data)).origin.profile is None


@pytest.mark.parametrize("size", [0, 3, 1 << 31])
def test_a_damaged_profile_is_left_aside(size: int):
    data = bytearray(bmp(RGB, PROFILE))
    data[14 + 116 : 14 + 120] = struct.pack("<I", size)
    assert read_image(bytes(data)).pixels.shape == RGB.shape


def test_metadata_of_jpeg_2000_go_along_and_turn_it():
    found = exif(6).tobytes().removeprefix(b"Exif\0\0")
    xmp_name = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
    told = jpeg_2000(GRAY, b"", box(b"uuid", b"JpgTiffExif->JP2" + found), box(b"uuid", xmp_name + XMP))
    read = read_image(told)
    assert np.array_equal(read.pixels[..., 0], np.rot90(GRAY, -1))
    assert weigh_image(told).shape == read.pixels.shape[:2]
    assert dict(read.origin.metadata)["xmp-data"] == XMP
    with Image.open(io.BytesIO(encode_image(read, ".jpg"))) as written:
        assert written.getexif()[0x0110] == "Model"
        assert written.getexif()[0x0112] == 1


def test_depth_that_is_lost_is_said():
    data = bytearray(jpeg_2000(RGB))
    at = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[at] == 7
    for component in range(3):
        data[at + 3 * component] = 11  # 12 bits, of which these pixels use 8
    notes = read_image(bytes(data)).origin.notes
    assert "its 12 bits per channel were cut to 8 by the JPEG 2000 decoder" in notes
    assert not read_image(jpeg_2000(RGB)).origin.notes


def test_the_first_codestream_is_the_image():
    data = bytearray(jpeg_2000(GRAY))
    at = data.index(b"jp2c") - 4
    data[at : at + 4] = struct.pack(">I", len(data) - at)
    read = read_image(bytes(data) + box(b"jp2c", bytes(60)))
    assert np.array_equal(read.pixels[..., 0], GRAY)
    assert not read.origin.notes


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_cut_boxes_do_no_harm(cut: int):
    data = jpeg_2000(GRAY)
    at = data.index(b"jp2h") - 4
    assert np.array_equal(read_image(data[:at] + data[at:]).pixels[..., 0], GRAY)
    longer = data + box(b"uuid", b"JpgTiffExif->JP2" + bytes(200))[:cut]
    assert np.array_equal(read_image(longer).pixels[..., 0], GRAY)


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "JPEG2000"])
def test_comments_stay_where_there_is_a_place_and_are_missed_elsewhere(kind: str):
    read = read_image(pillow(GRAY, kind, comment="Anna, Straße 1931".encode()))
    for suffix in (".jpg", ".png"):
        data, notes = encode_with_notes(read, suffix)
        assert not notes
        with Image.open(io.BytesIO(data)) as written:
            text = written.info.get("comment", written.info.get("Comment"))
            assert (text.decode() if isinstance(text, bytes) else text) == "Anna, Straße 1931"
    for suffix in (".tif", ".webp", ".avif"):
        assert any("comments were left out" in note for note in encode_with_notes(read, suffix)[1])


WITHOUT_END = [
    ("JPEG", b"\xff\xfe\0\4ab"),
    ("GIF", b"!\xfe\2ab\0"),
    ("JPEG2000", b"\xff\x64\0\6\0\1ab"),
]


@pytest.mark.parametrize(("kind", "comment"), WITHOUT_END)
def test_of_comments_without_end_some_are_kept(kind: str, comment: bytes):
    data = pillow(GRAY, kind, **{"no_jp2": True} if kind == "JPEG2000" else {})
    at = {"JPEG": 20, "GIF": 13 + 3 * 256, "JPEG2000": data.find(b"\xff\x52")}[kind]
    told = data[:at] + comment * 100_000 + data[at:]
    tracemalloc.start()
    try:
        read = read_image(told)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(told)  # at most 256 comments are kept
    finally:
        tracemalloc.stop()
    assert len(read.origin.texts) == 256
    beyond = "comments beyond its first 256 were left out"
    assert beyond in read.origin.notes
    assert beyond not in read_image(data[:at] + comment * 256 + data[at:]).origin.notes


PNG = pillow(GRAY, "PNG")
JPEG = pillow(GRAY, "JPEG")
JUMBF = b"\0\0\0\x1ejumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71"


@pytest.mark.parametrize(
    "data",
    [
        after_start(JPEG, 2 * app11(JUMBF)),
        PNG[:33] + chunk(b"caBX", JUMBF) + PNG[33:],
        pillow(RGB, "AVIF") + box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + JUMBF),
    ],
)
def test_content_credentials_are_missed(data: bytes):
    assert ["content credentials (C2PA)" in note for note in read_image(data).origin.notes] == [True]


@pytest.mark.parametrize(
    "data", [after_start(JPEG, app11(bytes(30))), pillow(RGB, "AVIF") + box(b"uuid", bytes(40))]
)
def test_other_boxes_are_no_content_credentials(data: bytes):
    assert read_image(data).origin.notes == ()


def test_further_boxes_of_jpeg_2000_are_missed():
    boxes = (
        box(b"xml ", b"<gml/>"),
        box(b"uuid", bytes(16)),
        box(b"uuid", bytes(16)),
        box(b"free", bytes(4)),
    )
    assert read_image(jpeg_2000(GRAY, b"", *boxes)).origin.notes == (
        "further boxes were left out: xml, uuid",
    )


def test_what_was_deleted_from_a_jpeg_2000_is_not_read():
    """Editors turn a box into padding by changing only its name."""
    kept, gone = (box(kind, XMP_UUID + XMP) for kind in (b"uuid", b"free"))
    assert dict(read_image(jpeg_2000(GRAY, b"", kept)).origin.metadata) == {"xmp-data": XMP}
    assert read_image(jpeg_2000(GRAY, b"", gone)).origin.metadata == ()


def test_what_a_gif_says_behind_many_blocks_is_found():
    data = pillow(GRAY, "GIF")
    frames = b",\0\0\0\0\1\0\1\0\0\2" + (b"\xff" + bytes(255)) * 20_000 + b"\0"  # more than 4 MB
    told = data[:-1] + frames + b"!\xfe\5attic\0;"
    assert [text for _, text in read_image(told).origin.texts] == ["attic"]
    assert not read_image(told).origin.notes[1:]  # the only note is on its frames


@pytest.mark.parametrize("blocks", [b"!\xf9" + b"\1a" * 300_000 + b"\0", b"!\xf9\0" * 300_000])
def test_blocks_of_a_gif_without_end_are_not_followed_and_that_is_said(blocks: bytes):
    data = pillow(GRAY, "GIF")
    told = data[:-1] + blocks + b"!\xfe\5attic\0;"
    read = read_image(told)
    assert not read.origin.texts
    assert any("after its first 262,144 blocks" in note for note in read.origin.notes)


@pytest.mark.parametrize(
    ("kind", "segment", "comment"),
    [("JPEG", b"\xff\xe5\0\2", b"\xff\xfe\0\4ab"), ("JPEG2000", b"\xff\x64\0\4\0\0", b"\xff\x64\0\6\0\1ab")],
)
@pytest.mark.parametrize("count", [10, 300_000])
def test_segments_without_end_are_not_followed(kind: str, segment: bytes, comment: bytes, count: int):
    data = pillow(GRAY, kind, **{"no_jp2": True} if kind == "JPEG2000" else {})
    at = 20 if kind == "JPEG" else data.find(b"\xff\x52")
    read = read_image(data[:at] + segment * count + comment + data[at:])
    assert len(read.origin.texts) == (count == 10)


def test_of_jpeg_2000_neither_its_encoder_nor_what_is_no_text_is_a_comment():
    data = pillow(GRAY, "JPEG2000", no_jp2=True)
    assert b"Created by OpenJPEG" in data
    at = data.index(b"\xff\x52")
    told = data[:at] + b"\xff\x64\0\6\0\0\1\2" + data[at:]
    assert read_image(told).origin.texts == ()
    for own in (
        b"Creator: JasPer Version 1.900.1",
        b"Created by Grok version 10.0",
        b"Kakadu-v7.4",
        b"Lavc60.3",
    ):
        told = data[:at] + b"\xff\x64" + bytes([0, len(own) + 4, 0, 1]) + own + data[at:]
        assert read_image(told).origin.texts == ()
    told = data[:at] + b"\xff\x64\0\x09\0\1Stra\xdf" + data[at:]
    assert [text for _, text in read_image(told).origin.texts] == ["Stra\xdf"]


def test_xmp_and_profile_of_a_gif_go_along():
    data, at = pillow(RGB, "GIF").replace(b"GIF87a", b"GIF89a"), 13 + 3 * 256  # after a table of 256 colours
    ramp = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    parts = [PROFILE[k : k + 255] for k in range(0, len(PROFILE), 255)]
    profile = b"!\xff\x0bICCRGBG1012" + b"".join(bytes([len(each)]) + each for each in parts) + b"\0"
    told = data[:at] + b"!\xff\x0bXMP DataXMP" + XMP + ramp + profile + data[at:]
    plain, read = read_image(data), read_image(told)
    assert dict(read.origin.metadata)["xmp-data"] == XMP
    assert np.abs(read.pixels - in_srgb(np.ascontiguousarray(plain.pixels), PROFILE)).mean() < 0.5


@pytest.mark.parametrize(
    ("across", "down", "dpi"), [(1, 2, (72, 144)), (20, 10, (144, 72)), (1, 1, None), (0, 1, None)]
)
def test_pixels_of_a_jpeg_without_a_unit_have_a_shape_alone(
    across: int, down: int, dpi: tuple[int, int] | None
):
    data = bytearray(pillow(GRAY, "JPEG"))
    at = data.index(b"JFIF\0") + 7
    data[at : at + 5] = struct.pack(">BHH", 0, across, down)
    found = read_image(bytes(data)).origin.pixels_per_mm
    assert (found and tuple(np.multiply(found, 25.4).round(3))) == dpi


@pytest.mark.parametrize("across", [0.001, 6553.6])
def test_a_resolution_that_jfif_cannot_hold_is_left_to_exif(across: float):
    assert jfif_segment((across, across)) == b""
    assert jfif_segment((1.0, 6553.5)).endswith(struct.pack(">BHH", 0x02, 10, 65535) + b"\0\0")


def test_exif_comes_before_comments():
    data = after_start(pillow(GRAY, "JPEG", exif=exif().tobytes()), b"\xff\xfe\0\4ab")
    written = encode_image(read_image(data), ".jpg")
    assert 0 < written.index(b"Exif\0\0") < written.index(b"\xff\xfe\0\4ab")


@pytest.mark.parametrize("number", [b"-1", b"4096", b"1_0", b"1.5", b"x", b""])
def test_a_number_that_a_deep_pnm_may_not_hold_is_refused(number: bytes):
    with pytest.raises(ImageError, match="damaged or cut short"):
        read_image(b"P3\n1 1\n4095\n7 %b 8" % number)


@pytest.mark.parametrize("form", [b"P6\n24 16\n%d\n", b"P3\n24 16\n%d\n# a comment\n"])
@pytest.mark.parametrize("top", [1023, 4095, 65535])
def test_colours_of_a_deep_pnm_keep_their_depth(form: bytes, top: int):
    codes = np.random.default_rng(0).integers(0, top + 1, (16, 24, 3))
    plain = b" ".join(b"%d" % code for code in codes.ravel())
    data = form % top + (codes.astype(">u2").tobytes() if form.startswith(b"P6") else plain)
    read = read_image(data)
    assert read.pixels.dtype == np.uint16
    assert np.array_equal(read.pixels, (codes * (65535 / top)).round())
    assert np.array_equal(read_image(encode_image(read, ".png")).pixels, read.pixels)
