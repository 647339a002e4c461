"""Metadata are copied, except those that would be wrong, such as old thumbnails."""

import io
import struct
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
from odd_files import GRAY, RGB, XMP, after_start, exif, pillow, tiff
from PIL import Image, ImageOps

from knowhue import __version__
from knowhue.images.containers import add_texts
from knowhue.images.image import ComputedBy, Origin
from knowhue.images.image import Image as OurImage
from knowhue.images.metadata import SOURCE_TYPE
from knowhue.images.reading import read_image, weigh_image
from knowhue.images.writing import OUTPUT_SUFFIXES, encode_with_notes

SUFFIXES = [".jpg", ".png", ".tif", ".webp", ".avif"]
OLD = pillow(Image.fromarray(GRAY).resize((8, 6)), "JPEG")
"""A thumbnail of the gray image."""


def with_thumbnail(turned: bool = True) -> bytes:
    """EXIF of a camera with a second directory, whose thumbnail is at the end."""
    found = exif(6)
    if not turned:
        del found[0x0112]
    block = found.tobytes().removeprefix(b"Exif\0\0")
    assert block[:4] in (b"II*\0", b"MM\0*")
    order = "<" if block[:2] == b"II" else ">"
    first = struct.unpack_from(f"{order}I", block, 4)[0]
    link = first + 2 + 12 * struct.unpack_from(f"{order}H", block, first)[0]
    entries = ((0x0103, 3, 6 if order == "<" else 6 << 16), (0x0201, 4, 0), (0x0202, 4, len(OLD)))
    here = len(block) + len(block) % 2
    image = here + 2 + 12 * len(entries) + 4
    rows = b"".join(
        struct.pack(f"{order}HHII", tag, kind, 1, image if tag == 0x0201 else value)
        for tag, kind, value in entries
    )
    second = struct.pack(f"{order}H", len(entries)) + rows + bytes(4)
    whole = block[:link] + struct.pack(f"{order}I", here) + block[link + 4 :]
    return b"Exif\0\0" + whole.ljust(here, b"\0") + second + OLD


SOURCES = {
    "JPEG": partial(pillow, GRAY, "JPEG"),
    "PNG": partial(pillow, GRAY, "PNG"),
    "WEBP": partial(pillow, RGB, "WEBP"),
    "AVIF": partial(pillow, RGB, "AVIF"),
    "TIFF": partial(pillow, GRAY, "TIFF"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", list(SOURCES))
def test_the_thumbnail_of_the_gray_image_is_gone_and_the_rest_is_there(kind: str, suffix: str):
    # an AVIF without orientation, which Pillow would write as boxes instead
    block = exif(6) if kind == "TIFF" else with_thumbnail(turned=kind != "AVIF")
    data = SOURCES[kind](exif=block)
    assert kind == "TIFF" or OLD in data
    written, notes = encode_with_notes(read_image(data), suffix)
    assert OLD not in written
    with Image.open(io.BytesIO(written)) as opened:
        found = opened.getexif()
        assert found.get_ifd(1) == {}
        assert found[0x010F] == "Maker"
        assert kind == "TIFF" or found.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        assert kind == "TIFF" or found.get_ifd(0x8825)[1] == "N"
    assert not notes


@pytest.mark.parametrize("end", [6, 9, 14, 20, 40])
def test_cut_exif_does_no_harm(end: int):
    data = pillow(RGB, "JPEG", exif=with_thumbnail()[:end])
    assert read_image(encode_with_notes(read_image(data), ".jpg")[0]).pixels.shape == RGB.shape


def resource(kind: int, body: bytes) -> bytes:
    """One of Photoshop's blocks."""
    return b"8BIM" + struct.pack(">HHI", kind, 0, len(body)) + body + b"\0" * (len(body) % 2)


CAPTION = b"\x1c\x02\x78\0\x07caption"


@pytest.mark.parametrize("kind", [0x0409, 0x040C])
@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_photoshops_thumbnail_is_gone_and_its_caption_is_there(kind: int, suffix: str):
    blocks = resource(0x03ED, bytes(16)) + resource(kind, bytes(28) + OLD) + resource(0x0404, CAPTION)
    body = b"Photoshop 3.0\0" + blocks
    data = after_start(pillow(GRAY, "JPEG"), b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body)
    assert OLD in data
    written, _ = encode_with_notes(read_image(data), suffix)
    assert OLD not in written
    assert b"caption" in written
    assert resource(0x03ED, bytes(16)) in written


# XMP

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
CAMERA = "http://ns.google.com/photos/1.0/camera/"
HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
CONTAINER = "http://ns.google.com/photos/1.0/container/"
DC = "http://purl.org/dc/elements/1.1/"


def xmp(attributes: str = "", inside: str = "") -> bytes:
    """A packet with a title and the given properties."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" xmlns:dc="{DC}" xmlns:c="{CAMERA}" '
        f'xmlns:hdrgm="{HDRGM}" xmlns:Container="{CONTAINER}" xmlns:Item="{CONTAINER}item/" '
        f'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:n="http://ns.adobe.com/xmp/note/" xmp:Rating="4" {attributes}>'
        f"<dc:title>Grün &amp; grau</dc:title>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


DIRECTORY = (
    '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" '
    'Item:Length="689"/></rdf:li></rdf:Seq></Container:Directory>'
)
ANNOUNCED = {
    "gain map": (xmp('hdrgm:Version="1.0"', DIRECTORY), "gain map"),
    "motion photo": (xmp('c:MotionPhoto="1" c:MotionPhotoVersion="1"', DIRECTORY), "video"),
    "micro video": (xmp("", "<c:MicroVideo>1</c:MicroVideo><c:MicroVideoOffset>13683</c:MicroVideoOffset>"), "video"),
    "extended": (xmp('n:HasExtendedXMP="0123456789ABCDEF"'), "more XMP"),
    "thumbnails": (xmp("", "<xmp:Thumbnails><rdf:Alt><rdf:li>/9j/4AAQ</rdf:li></rdf:Alt></xmp:Thumbnails>"), ""),
}  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", list(ANNOUNCED))
def test_xmp_announces_nothing_that_is_not_in_the_file(name: str, suffix: str):
    packet, what = ANNOUNCED[name]
    written, notes = encode_with_notes(read_image(pillow(RGB, "JPEG", xmp=packet)), suffix)
    held = dict(read_image(written).origin.metadata)["xmp-data"]
    assert isinstance(held, bytes)
    names = [node.tag for node in ElementTree.fromstring(held).iter()] + [
        key for node in ElementTree.fromstring(held).iter() for key in node.attrib
    ]
    assert not [each for each in names if each.startswith((f"{{{HDRGM}", f"{{{CONTAINER}", f"{{{CAMERA}M"))]
    assert not [each for each in names if each.endswith(("HasExtendedXMP", "Thumbnails"))]
    assert "{http://ns.adobe.com/xap/1.0/}Rating" in names
    assert "Grün &amp; grau".encode() in held
    assert len(notes) == bool(what)
    assert all(what in note and "no longer announces" in note for note in notes)


def test_what_is_true_in_those_spaces_stays():
    packet = xmp('c:BurstID="abc" c:SpecialTypeID="x"')
    written, notes = encode_with_notes(read_image(pillow(RGB, "JPEG", xmp=packet)), ".jpg")
    assert dict(read_image(written).origin.metadata)["xmp-data"] == packet
    assert not notes


@pytest.mark.parametrize(
    "packet",
    [
        xmp('hdrgm:Version="1.0"')[:-30],
        xmp('hdrgm:Version="1.0"').replace(b"<x:xmpmeta", b'<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta'),
    ],
)
def test_xmp_that_cannot_be_read_goes_if_it_announces_something(packet: bytes):
    notes, metadata = written_xmp(packet)
    assert "xmp-data" not in metadata
    assert "gain map" in notes[0]


def test_xmp_that_cannot_be_read_stays_if_it_does_not():
    notes, metadata = written_xmp(XMP[:-9])
    assert metadata["xmp-data"] == XMP[:-9].replace(b'"6"', b'"1"')
    assert not notes


def written_xmp(packet: bytes) -> tuple[list[str], dict[str, bytes]]:
    image = OurImage(RGB, None, Origin(metadata=(("xmp-data", packet),)))
    written, notes = encode_with_notes(image, ".jpg")
    return notes, dict(read_image(written).origin.metadata)


def test_xmp_in_another_encoding_is_understood():
    packet = xmp('hdrgm:Version="1.0"').decode().encode("utf-16")
    notes, metadata = written_xmp(packet)
    held = metadata["xmp-data"]
    assert isinstance(held, bytes)
    assert b"Version" not in held.replace(b"\0", b"")
    assert "Grün".encode() in held
    assert "gain map" in notes[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_is_that_of_the_upright_image(suffix: str):
    turned = exif(6)
    turned.get_ifd(0x8769).update({0xA002: 24, 0xA003: 16})
    sizes = 'xmlns:tiff="t" xmlns:exif="e" tiff:Orientation="6" tiff:ImageWidth="24" tiff:ImageLength="16"'
    packet = xmp(
        sizes,
        "<exif:PixelXDimension>24</exif:PixelXDimension><exif:PixelYDimension>16</exif:PixelYDimension>",
    )
    read = read_image(pillow(RGB, "JPEG", exif=turned, xmp=packet))
    assert read.pixels.shape[:2] == (24, 16)
    written, _ = encode_with_notes(read, suffix)
    with Image.open(io.BytesIO(written)) as opened:
        inner = opened.getexif().get_ifd(0x8769)
        assert (inner[0xA002], inner[0xA003]) == (16, 24)
    held = dict(read_image(written).origin.metadata)["xmp-data"]
    assert isinstance(held, bytes)
    for part in (
        b'tiff:Orientation="1"',
        b'tiff:ImageWidth="16"',
        b'tiff:ImageLength="24"',
        b">16</exif:PixelX",
        b">24</exif:PixelY",
    ):
        assert part in held


# Computed colours

MODEL = ComputedBy("reef & co", "0123abcd")
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
BASIC = "http://ns.adobe.com/xap/1.0/"
DECLARED = {
    f"{{{IPTC}}}DigitalSourceType": SOURCE_TYPE,
    f"{{{IPTC}}}AISystemUsed": "Knowhue, model reef & co",
    f"{{{IPTC}}}AISystemVersionUsed": f"{__version__}, model 0123abcd",
    f"{{{BASIC}}}CreatorTool": f"Knowhue {__version__}",
}


def computed(packet: bytes | None, suffix: str = ".jpg") -> tuple[bytes, list[str]]:
    """The XMP, found by Pillow, of an image whose colours were computed."""
    metadata = () if packet is None else (("xmp-data", packet),)
    image = OurImage(RGB, None, Origin(metadata=metadata, computed_by=MODEL))
    written, notes = encode_with_notes(image, suffix)
    with Image.open(io.BytesIO(written)) as opened:
        found = opened.info["XML:com.adobe.xmp" if suffix == ".png" else "xmp"]
    return found.encode() if isinstance(found, str) else found, notes


def properties(packet: bytes) -> list[tuple[str, str]]:
    """All properties of a packet, given as attributes or as elements."""
    descriptions = ElementTree.fromstring(packet).iter(f"{{{RDF}}}Description")
    return [
        pair
        for each in descriptions
        for pair in (*each.attrib.items(), *((child.tag, child.text or "") for child in each))
    ]


def test_the_term_is_one_of_iptcs():
    assert (
        SOURCE_TYPE == "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packet", [None, xmp(), xmp().decode().encode("utf-16")], ids=["none", "8", "16"])
def test_computed_colours_are_declared_beside_what_was_said(packet: bytes | None, suffix: str):
    found, notes = computed(packet, suffix)
    said = properties(found)
    assert not notes
    assert DECLARED.items() <= dict(said).items()
    names = [name for name, _ in said if not name.startswith(f"{{{RDF}")]
    assert len(names) == len(set(names))
    if packet is not None:
        assert dict(said)[f"{{{BASIC}}}Rating"] == "4"
        assert dict(said)[f"{{{DC}}}title"] == "Grün & grau"


@pytest.mark.parametrize(
    "packet",
    [
        xmp(f'xmlns:i="{IPTC}" i:DigitalSourceType="x" i:AISystemUsed="y"'),
        xmp("", f'<i:DigitalSourceType xmlns:i="{IPTC}">x</i:DigitalSourceType>'),
    ],
)
def test_what_was_said_of_the_source_is_replaced(packet: bytes):
    said = properties(computed(packet)[0])
    assert [value for name, value in said if name.endswith("DigitalSourceType")] == [SOURCE_TYPE]
    assert DECLARED.items() <= dict(said).items()


def test_the_first_tool_stays_the_creator_tool():
    said = dict(properties(computed(xmp('xmp:CreatorTool="Scanner 5"'))[0]))
    assert said[f"{{{BASIC}}}CreatorTool"] == "Scanner 5"
    assert said[f"{{{IPTC}}}DigitalSourceType"] == SOURCE_TYPE


def test_declaring_twice_is_declaring_once():
    once, _ = computed(xmp('xmp:CreatorTool="Scanner 5"'))
    twice, _ = computed(once)
    assert twice == once
    fresh, _ = computed(None)
    assert computed(computed(fresh)[0])[0] == computed(fresh)[0]


@pytest.mark.parametrize(
    "packet",
    [
        XMP[:-9],
        XMP.replace(b"<r ", b"<s "),
        b"<other/>",
        b"no XML",
        f'<!DOCTYPE x><rdf:RDF xmlns:rdf="{RDF}"/>'.encode(),
    ],
)
def test_a_damaged_packet_is_not_made_worse_and_that_is_said(packet: bytes):
    found, notes = computed(packet)
    assert found == packet.replace(b'Orientation="6"', b'Orientation="1"')
    assert ["does not say that the colours are computed" in note for note in notes] == [True]


def test_a_damaged_packet_that_has_to_go_makes_room():
    found, notes = computed(xmp('hdrgm:Version="1.0"')[:-30])
    assert DECLARED.items() <= dict(properties(found)).items()
    assert ["gain map" in note for note in notes] == [True]


def test_where_xmp_is_too_long_for_jpeg_the_colours_are_declared_alone():
    found, notes = computed(xmp("", f"<dc:description>{'x' * 65_400}</dc:description>"))
    assert DECLARED.items() <= dict(properties(found)).items()
    assert ["XMP was left out" in note for note in notes] == [True]


def test_an_image_as_it_was_read_declares_nothing():
    notes, metadata = written_xmp(xmp())
    assert (notes, metadata["xmp-data"]) == ([], xmp())


# Data after a JPEG


@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (pillow(RGB, "JPEG"), "first image in its file"),
        (bytes(64) + pillow(RGB, "JPEG"), "first image in its file"),
        (struct.pack(">I4s4s", 24, b"ftyp", b"mp42") + bytes(500), "video after it"),
        (b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + b"\0\0\0\x18ftypmp42" + bytes(99), "video after it"),
        (bytes(1000), ""),
        (b"PK\x03\x04", ""),
    ],
)
def test_what_lies_behind_a_jpeg_is_said(behind: bytes, said: str):
    for progressive in (False, True):
        first = pillow(RGB, "JPEG", progressive=progressive, exif=with_thumbnail(), restart_marker_blocks=1)
        notes = read_image(first + behind).origin.notes
        assert len(notes) == bool(said)
        assert all(said in note for note in notes)


def test_a_multi_image_file_is_said():
    more = [Image.fromarray(RGB[::-1].copy())]
    data = pillow(RGB, "MPO", save_all=True, append_images=more)
    read = read_image(data)
    assert np.abs(read.pixels.astype(int) - RGB).mean() < 6
    assert "first image in its file" in read.origin.notes[0]


# Text


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_names_that_are_not_ascii_stay(kind: str, suffix: str):
    artist = "Ä. Bücherwürmer"
    data = tiff(GRAY, extratags=[(315, 2, 0, artist.encode() + b"\0", True)])
    if kind == "JPEG":
        found = exif()
        found[0x013B] = artist.encode()
        data = pillow(GRAY, "JPEG", exif=found)
    written, _ = encode_with_notes(read_image(data), suffix)
    assert artist.encode() in written


def test_every_kind_that_is_written_is_tried_here():
    assert {kind.suffix for kind in OUTPUT_SUFFIXES.values()} == set(SUFFIXES)


def test_a_damaged_field_costs_that_field_alone():
    found = exif()
    found.get_ifd(0x8769)[0x9290] = "text"
    block = found.tobytes().replace(b"\x92\x90\0\x02", b"\x01\x17\0\x02")  # a number's tag, a text's type
    assert block != found.tobytes()
    image = OurImage(RGB, None, Origin(metadata=(("exif-data", block),)))
    with Image.open(io.BytesIO(encode_with_notes(image, ".tif")[0])) as opened:
        assert opened.getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


@pytest.mark.parametrize("inner", [b"<a/>" * 70_000, b"<a>" * 5000 + b"</a>" * 5000])
def test_xmp_that_would_take_minutes_or_is_nested_without_end_is_not_read(inner: bytes):
    image = OurImage(
        RGB,
        None,
        Origin(
            metadata=(("xmp-data", XMP[:-12] + inner + XMP[-12:]),),
            computed_by=ComputedBy("reef", "0123abcd"),
        ),
    )
    data, notes = encode_with_notes(image, ".png")
    assert inner in data
    assert any("XMP is damaged or too large, and stays as it is" in note for note in notes)


# Orientation

TURNED = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"%s</rdf:Description></rdf:RDF></x:xmpmeta>'
)
FORMS = [b' tiff:Orientation="6">', b"><tiff:Orientation>6</tiff:Orientation>"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_that_of_xmp_where_exif_says_none(kind: str, form: bytes):
    if kind == "PNG":
        data = add_texts(pillow(RGB, "PNG"), (), TURNED % form)
    else:
        data = pillow(RGB, kind, xmp=TURNED % form, **({"lossless": True} if kind == "WEBP" else {}))
    read = read_image(data)
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        assert np.abs(np.asarray(ImageOps.exif_transpose(opened)).astype(int) - read.pixels).max() <= 2
    assert weigh_image(data).shape in (None, read.pixels.shape[:2])
    again = read_image(encode_with_notes(read, ".png")[0])
    assert np.array_equal(again.pixels, read.pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_of_exif_counts_more_than_that_of_xmp(kind: str):
    found = exif(1)
    data = pillow(RGB, kind, xmp=TURNED % FORMS[0], exif=found)
    assert read_image(data).pixels.shape == RGB.shape


@pytest.mark.parametrize(
    "told",
    [
        b' tiff:Orientation="9">',
        b' tiff:Orientation="">',
        b"><tiff:Orientation/>",
        b' tiff:Orientation="' + b"6" * 5000 + b'">',
    ],
)
def test_an_orientation_of_xmp_that_is_none_turns_nothing(told: bytes):
    assert read_image(pillow(RGB, "JPEG", xmp=TURNED % told)).pixels.shape == RGB.shape
