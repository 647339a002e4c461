"""PNG chunks are read at any position, and text is written unchanged."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from odd_files import GRAY, RGB, chunk, exif, pillow
from PIL import Image, ImageOps, PngImagePlugin

from knowhue.images.reading import read_image, weigh_image
from knowhue.images.writing import encode_image

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="attic"/></rdf:RDF></x:xmpmeta>'
)
EXIF = exif(6).tobytes().removeprefix(b"Exif\0\0")
ITXT = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP


def with_chunks(*chunks: bytes, behind: bool, pixels: np.ndarray = GRAY) -> bytes:
    """A PNG with chunks before or after its pixels."""
    data = pillow(pixels, "PNG")
    place = data.rindex(b"IEND") - 4 if behind else 33
    return data[:place] + b"".join(chunks) + data[place:]


def raw_profile(kind: bytes, body: bytes) -> bytes:
    """Metadata as text, as ImageMagick wrote it before PNG had chunks for it."""
    digits = body.hex().encode()
    lines = b"\n".join(digits[k : k + 72] for k in range(0, len(digits), 72))
    text = b"\n%s\n%8d\n%s\n" % (kind, len(body), lines)
    return chunk(b"zTXt", b"Raw profile type " + kind + b"\0\0" + zlib.compress(text))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    "told",
    [
        chunk(b"eXIf", EXIF),
        raw_profile(b"exif", b"Exif\0\0" + EXIF),
        raw_profile(b"APP1", b"Exif\0\0" + EXIF),
    ],
)
def test_orientation_is_that_of_exif_wherever_it_stands(told: bytes, behind: bool):
    data = with_chunks(told, behind=behind)
    read = read_image(data)
    assert np.array_equal(read.pixels[..., 0], np.rot90(GRAY, -1))
    assert weigh_image(data).shape == read.pixels.shape[:2]
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        if told[4:8] == b"eXIf":
            assert np.array_equal(np.asarray(ImageOps.exif_transpose(opened)), read.pixels[..., 0])
    with Image.open(io.BytesIO(encode_image(read, ".png"))) as written:
        assert written.getexif()[0x010F] == "Maker"
        assert written.getexif()[0x0112] == 1
        assert not any(str(name).startswith("Raw") for name in written.info)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("told", [chunk(b"iTXt", ITXT), raw_profile(b"xmp", XMP)])
def test_xmp_is_found_wherever_it_stands(told: bytes, behind: bool):
    assert dict(read_image(with_chunks(told, behind=behind)).origin.metadata)["xmp-data"] == XMP


@pytest.mark.parametrize("behind", [False, True])
def test_text_stays_with_its_key_and_its_letters(behind: bool):
    texts = {
        "Creation Time": "1931", "Title": "Straße", "Author": "Žofie", "Comment": "a\nb", "Source": "b"
    }  # fmt: skip
    chunks = (
        chunk(b"tEXt", b"Creation Time\x001931"),
        chunk(b"zTXt", b"Title\0\0" + zlib.compress("Straße".encode("latin-1"))),
        chunk(b"iTXt", b"Author\0\1\0cs\0Autor\0" + zlib.compress("Žofie".encode())),
        chunk(b"iTXt", b"Comment\0\0\0\0\0a\nb"),
        chunk(b"iTXt", b"Source\0\0\0cs\0\0b"),
    )
    written = encode_image(read_image(with_chunks(*chunks, behind=behind, pixels=RGB)), ".png")
    with Image.open(io.BytesIO(written)) as opened:
        assert {key: opened.info.get(key) for key in texts} == texts
        assert isinstance(author := opened.info["Author"], PngImagePlugin.iTXt)
        assert (author.lang, author.tkey) == ("cs", "Autor")
        assert opened.info["Source"].lang == "cs"


@pytest.mark.parametrize(
    "body",
    [
        chunk(b"zTXt", b"Title\0\0no zlib"),
        chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(1 << 25))),
        chunk(b"iTXt", b"Title\0\0\0de"),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  10\nzz\n")),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\nlong\n4578"),
        chunk(b"tEXt", b"\0"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<a>" * 5000 + b"</a>" * 5000),
    ],
)
def test_damaged_text_does_no_harm(body: bytes):
    read = read_image(with_chunks(body, behind=True, pixels=RGB))
    is_lost = body[4:8] != b"tEXt" and b"Raw" not in body and b"XML" not in body
    assert read.origin.notes == ("1 of its texts and EXIF were damaged or too long, and left out",) * is_lost
    assert np.array_equal(read_image(encode_image(read, ".png")).pixels, RGB)


def test_pixels_without_a_unit_have_a_shape_alone():
    read = read_image(with_chunks(chunk(b"pHYs", b"\0\0\0\2\0\0\0\1\0"), behind=False))
    assert np.allclose(np.multiply(read.origin.pixels_per_mm, 25.4), (144, 72))


@pytest.mark.parametrize("across", [0, 2])
def test_a_resolution_of_nothing_is_none(across: int):
    read = read_image(with_chunks(chunk(b"pHYs", struct.pack(">IIB", across, 0, 0)), behind=False))
    assert read.origin.pixels_per_mm is None


def test_texts_without_end_are_not_unpacked():
    bomb = chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(1 << 25)))
    data = with_chunks(*[bomb] * 40, chunk(b"tEXt", b"Title\0behind"), behind=True)
    tracemalloc.start()
    try:
        read = read_image(data)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert not read.origin.metadata + read.origin.texts


def test_exif_that_names_the_same_bytes_again_and_again_stays_small():
    fields = b"".join(struct.pack("<HHII", 40000 + k, 2, 1 << 20, 8) for k in range(5000))
    hostile = b"II*\0" + struct.pack("<IH", 8, 5000) + fields + bytes(1 << 20)
    tracemalloc.start()
    try:
        read_image(with_chunks(chunk(b"eXIf", hostile), behind=True))
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()
