"""The image of a TIFF is its full-size page, not a preview; raw files of cameras are refused."""

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from odd_files import GRAY, GRAY16, ODD_FILES, RGB, pillow, tiff
from PIL import Image

from knowhue.errors import ImageError
from knowhue.images.containers import FileInfo
from knowhue.images.image import Image as OurImage
from knowhue.images.image import Origin
from knowhue.images.reading import read_image, weigh_image
from knowhue.images.tiff import PageChoice, choose_page, tiff_info
from knowhue.images.writing import encode_image, encode_with_notes

PREVIEW = RGB[::4, ::4].copy()
REDUCED, MASK = 1, 4
CFA, LINEAR_RAW = 32803, 34892
DNG = (50706, 1, 4, bytes([1, 4, 0, 0]), True)


def pages(*kept: tuple[np.ndarray, dict], subs: int = 0, **options: bool | str) -> bytes:
    """A TIFF of several pages; the last `subs` of them are subdirectories of the first."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, **options) as writer:  # pyright: ignore[reportArgumentType]
        for k, (pixels, more) in enumerate(kept):
            sub = {"subifds": subs} if k == 0 and subs else {}
            writer.write(pixels, metadata=None, **sub, **more)
    return file.getvalue()


SMALL = (PREVIEW, {"subfiletype": REDUCED, "photometric": "rgb"})
PATTERN = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes([0, 1, 1, 2]), True)]
SENSOR = (GRAY16, {"photometric": CFA, "extratags": PATTERN})
WHOLE = (RGB, {"photometric": "rgb"})


@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}]
)
def test_a_preview_is_passed_over(options: dict):
    for data, note in (
        (pages(SMALL, WHOLE, **options), "page 2"),
        (pages((GRAY > 99, {"subfiletype": MASK, "photometric": "mask"}), SMALL, WHOLE, **options), "page 3"),
        (pages(SMALL, WHOLE, subs=1, **options), "full-size image"),
        (pages(SMALL, SMALL, WHOLE, subs=2, **options), "full-size image"),
    ):
        read = read_image(data)
        assert np.array_equal(read.pixels, RGB)
        assert len(read.origin.notes) == 1
        assert note in read.origin.notes[0]
        assert "preview" in read.origin.notes[0]


def test_a_preview_that_follows_changes_nothing():
    read = read_image(pages(WHOLE, SMALL))
    assert np.array_equal(read.pixels, RGB)
    assert "first of its 2 pages" in read.origin.notes[0]
    assert read_image(pages(WHOLE, SMALL, subs=1)).origin.notes == ()


def test_a_preview_alone_is_read():
    assert np.array_equal(read_image(pages(SMALL)).pixels, PREVIEW)


def test_a_preview_of_old_is_passed_over():
    old = (PREVIEW, {"photometric": "rgb", "extratags": [(255, 3, 1, 2, True)]})
    assert np.array_equal(read_image(pages(old, WHOLE)).pixels, RGB)


def test_pages_of_a_fax_are_pages():
    data = pages((GRAY, {"subfiletype": 2}), (GRAY[::-1].copy(), {"subfiletype": 2}))
    assert np.array_equal(read_image(data).pixels[..., 0], GRAY)


def test_memory_is_asked_for_the_whole_image(tmp_path: Path):
    (tmp_path / "small.tif").write_bytes(pages(SMALL, WHOLE))
    (tmp_path / "whole.tif").write_bytes(pages(WHOLE))
    assert (
        weigh_image(tmp_path / "small.tif").held_bytes == weigh_image(tmp_path / "whole.tif").held_bytes > 0
    )


OF_DNG = (PREVIEW, {**SMALL[1], "extratags": [DNG]})
RAW = {
    "dng": lambda: pages(OF_DNG, SENSOR, subs=1),
    "dng, linear": lambda: pages(OF_DNG, (RGB, {"photometric": LINEAR_RAW}), subs=1),
    "nef, arw, srw": lambda: pages(SMALL, WHOLE, SENSOR, subs=2),
    "pef": lambda: pages(SENSOR, SMALL),
    "big-endian": lambda: pages(SMALL, SENSOR, subs=1, byteorder=">"),
    "cr2": lambda: b"II*\0\x10\0\0\0CR\x02\0" + bytes(100),
    "iiq": lambda: b"II*\0\x10\0\0\0IIII" + bytes(100),
    "cr3": lambda: b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(100),
    "raf": lambda: b"FUJIFILMCCD-RAW 0201" + bytes(100),
    "orf": lambda: b"IIRO\x08\0\0\0" + bytes(100),
    "rw2": lambda: b"IIU\0\x18\0\0\0" + bytes(100),
    "crw": lambda: b"II\x1a\0\0\0HEAPCCDR" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("name", list(RAW))
def test_raw_files_are_refused_as_raw(tmp_path: Path, name: str):
    path = tmp_path / "photo.tif"
    path.write_bytes(RAW[name]())
    with pytest.raises(ImageError, match=r"raw file.*; develop it") as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ImageError, match="raw file"):
        read_image(RAW[name](), name="image")


@pytest.mark.parametrize("cut", [3, 8, 12, 60, 200])
def test_directories_that_are_cut_off_do_no_harm(cut: int):
    with pytest.raises(ImageError):
        read_image(pages(SMALL, SENSOR)[:cut])


def test_directories_that_go_round_end():
    data = bytearray(tiff(RGB))
    first = struct.unpack_from("<I", data, 4)[0]
    link = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, link, first)
    assert np.array_equal(read_image(bytes(data)).pixels, RGB)


def test_directories_without_end_are_not_followed():
    rows = b"".join(struct.pack("<HHII", 330, 4, 64, 8) for _ in range(1000))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 1000) + rows + struct.pack("<I", 9)
    with pytest.raises(ImageError):
        read_image(data + bytes(4000))


def overlapping(first: int, values_bytes: int, count: int = 300) -> bytes:
    """A directory at `first` whose entries all point to the same bytes after it."""
    behind = first + 2 + 12 * count + 4
    rows = b"".join(struct.pack("<HHII", 40_000 + k, 7, values_bytes, behind) for k in range(count))
    return struct.pack("<H", count) + rows + bytes(4) + bytes(values_bytes)


def peak_of(call) -> int:
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("place", ["first page", "second page"])
def test_directories_that_name_the_same_bytes_again_and_again_are_refused(place: str):
    data = bytearray(tiff(RGB))
    data += bytes(len(data) % 2)
    link = 4
    if place == "second page":
        first = struct.unpack_from("<I", data, 4)[0]
        link = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, link, len(data))
    data += overlapping(len(data), 100_000)
    with pytest.raises(ImageError, match=r"names 30,0.* bytes, more than the file has"):
        read_image(bytes(data))


def test_exif_that_names_the_same_bytes_again_and_again_stays_small():
    data = bytearray(tiff(RGB))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    rows = data[first + 2 : first + 2 + 12 * count]
    at = len(data) + len(data) % 2
    rows += struct.pack("<HHII", 0x8769, 4, 1, at + 6 + 12 * (count + 1))
    struct.pack_into("<I", data, 4, at)
    data = data.ljust(at, b"\0") + struct.pack("<H", count + 1) + rows + bytes(4)
    data += overlapping(len(data), 100_000)
    assert peak_of(lambda: read_image(bytes(data))) < 5_000_000
    block = dict(read_image(bytes(data)).origin.metadata)["exif-data"]
    assert isinstance(block, bytes)
    found = Image.Exif()
    found.load(block)
    assert dict(found) == {0x0131: "tifffile.py"}  # entries outside the unreadable directory
    assert len(block) < 100

    exif = b"Exif\0\0II*\0\x08\0\0\0" + overlapping(8, 100_000)
    image = read_image(pillow(RGB, "PNG", exif=exif))
    assert peak_of(lambda: encode_with_notes(image, ".tif")) < 5_000_000


def big_tiff(count: int, directories: int = 1) -> bytes:
    """Directories of `count` entries of one byte each that begin 20 bytes one after the other, within each other."""
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16)
    entry = struct.pack("<HHQQ", 254, 1, 1, 0)
    data = bytearray(head + struct.pack("<Q", count) + entry * (count + directories) + bytes(8))
    for number in range(directories):
        at = 16 + 20 * number
        struct.pack_into("<Q", data, at, count)
        following = at + 20 if number + 1 < directories else 0
        struct.pack_into("<Q", data, at + 8 + 20 * count, following)
    return bytes(data)


@pytest.mark.parametrize(("count", "directories"), [(2000, 250), (100_000, 1)])
def test_directories_with_entries_without_end_are_refused(tmp_path: Path, count: int, directories: int):
    data = big_tiff(count, directories)
    with pytest.raises(ImageError, match=r"directories have .* entries, more than 65,536"):
        choose_page(io.BytesIO(data))
    assert tiff_info(io.BytesIO(data)) == FileInfo()
    (tmp_path / "many.tif").write_bytes(data)
    assert weigh_image(tmp_path / "many.tif").held_bytes == 0


def test_a_directory_that_says_the_same_again_and_again_stays_small():
    data = big_tiff(60_000)
    assert peak_of(lambda: choose_page(io.BytesIO(data))) < 2 * len(data)
    assert choose_page(io.BytesIO(big_tiff(200, 250))) == PageChoice()


def test_a_further_directory_that_cannot_be_read_hides_no_other():
    data = bytearray(pages(SMALL, SMALL, WHOLE, subs=2))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].tags[330].valueoffset
    struct.pack_into("<I", data, place, len(data) - 1)
    assert np.array_equal(read_image(bytes(data)).pixels, RGB)


# Descriptive tags of the main directory

GEOGRAPHY = {
    33550: (0.5, 0.5, 0.0),
    33922: (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0),
    34735: (1, 1, 0, 1, 1024, 0, 1, 1),
    34737: "WGS 84|",
    42113: "-9999",
}
FORMS = {33550: "d", 33922: "d", 34735: "H"}
WORDS = {
    269: "Mappe 3",
    270: "Åre, sommaren",
    285: "Blad 7",
    316: "skanner",
    32781: "inventory 77",
    36867: "1931:07:04 12:00:00",
}


def told(fields: dict[int, Any], *more: tuple) -> bytes:
    texts = [
        (tag, 2, 0, each.encode() + b"\0", True) for tag, each in fields.items() if isinstance(each, str)
    ]
    numbers = [(tag, FORMS[tag], len(each), each, True) for tag, each in fields.items() if tag in FORMS]
    return tiff(GRAY, extratags=texts + numbers + list(more))


def test_what_the_main_directory_says_goes_along():
    data = encode_image(read_image(told(GEOGRAPHY | WORDS)), ".tif")
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        tags = opened.pages[0].tags
        assert {tag: tags[tag].value for tag in GEOGRAPHY | WORDS} == GEOGRAPHY | WORDS
        assert opened.asarray().shape == GRAY.shape


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif"])
def test_places_on_earth_are_missed_where_there_is_no_place_for_them(suffix: str):
    data, notes = encode_with_notes(read_image(told(GEOGRAPHY | WORDS)), suffix)
    assert f"GeoTIFF was left out: {suffix} cannot hold that" in notes
    assert "Åre, sommaren".encode() in data
    assert not encode_with_notes(read_image(told(WORDS)), suffix)[1]


def test_places_on_earth_of_an_image_that_is_turned_are_missed():
    turned = told(GEOGRAPHY | WORDS, (274, "H", 1, 6, True))
    read = read_image(turned)
    assert read.pixels.shape[:2] == GRAY.shape[1::-1]
    assert "its GeoTIFF was left out because the image was turned upright" in read.origin.notes
    with tifffile.TiffFile(io.BytesIO(encode_image(read, ".tif"))) as opened:
        assert {tag: opened.pages[0].tags[tag].value for tag in WORDS} == WORDS
        assert not GEOGRAPHY.keys() & {tag.code for tag in opened.pages[0].tags}


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}])
@pytest.mark.parametrize("count", [1, 5])
def test_a_description_of_where_images_lie_is_not_kept(options: dict, count: int):
    file = io.BytesIO()
    axes = {"metadata": {"axes": "ZYX"}} if count > 1 else {}
    tifffile.imwrite(file, np.stack([GRAY] * count) if count > 1 else GRAY, **options, **axes)
    read = read_image(file.getvalue())
    assert any("its description" in note for note in read.origin.notes)
    data = encode_image(read, ".tif")
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        assert np.array_equal(opened.asarray(), GRAY)
        assert not opened.pages[0].description


@pytest.mark.parametrize(("unit", "dpi"), [(1, (144, 72)), (2, (300, 150)), (3, (762, 381))])
def test_a_resolution_without_a_unit_is_the_shape_of_pixels_alone(unit: int, dpi: tuple[int, int]):
    read = read_image(tiff(GRAY, resolution=(300, 150), resolutionunit=unit))
    assert np.allclose(np.multiply(read.origin.pixels_per_mm, 25.4), dpi)


def test_a_resolution_without_a_unit_is_at_least_72_per_inch_when_it_is_written_again():
    for across, down, dpi in ((13, 39, (72, 216)), (11, 22, (72, 144)), (42, 21, (144, 72))):
        read = read_image(tiff(GRAY, resolution=(across, down), resolutionunit=1, description="a"))
        found = Image.open(io.BytesIO(encode_image(read, ".png"))).getexif()
        assert (found[0x011A], found[0x011B]) == dpi


@pytest.mark.parametrize("unit", [1, 2, 3])
def test_a_resolution_of_nothing_is_none(unit: int):
    read = read_image(tiff(GRAY, resolution=(0, 150), resolutionunit=unit))
    assert read.origin.pixels_per_mm is None


def test_private_tags_are_missed_but_for_those_of_storage():
    layers = (37724, 7, 4, b"8BIM", True)
    padding = (59932, 7, 4, bytes(4), True)
    read = read_image(told(GEOGRAPHY | WORDS, layers, (50838, "I", 1, 7, True), padding))
    assert read.origin.notes == ("private tags of the TIFF were left out: Photoshop's layers (37724), 50838",)
    assert not read_image(told(GEOGRAPHY | WORDS, padding)).origin.notes


def test_xmp_of_what_pillow_reads_goes_along():
    with Image.open(io.BytesIO(ODD_FILES["tiff lab"].data())) as lab:
        data = pillow(lab, "TIFF", tiffinfo={700: b"<x/>", 34377: b"8BIM"})
    assert dict(read_image(data).origin.metadata) == {"xmp-data": b"<x/>", "photoshop-data": b"8BIM"}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("tag", "form", "values"),
    [
        (0xA302, "2H4B", (2, 2, 0, 1, 1, 2)),
        (0x8828, "2H6s8I", (2, 2, b"a\0bcd\0", *range(1, 9))),
        (0xA20C, "2H2s2I", (1, 1, b"a\0", 1, 2)),
        (0xA20C, "2H2s2I", (9, 9, b"a\0", 0, 0)),  # claims more than its length, and stays unchanged
        (0xA302, "2s", (b"ab",)),
    ],
)
def test_numbers_within_bytes_of_exif_are_in_the_order_of_what_is_written(
    order: str, tag: int, form: str, values: tuple
):
    table = struct.pack(order + form, *values)
    written = exif_written(order, tag, table)
    is_table = len(table) > 4 and values[0] < 9
    assert written == (struct.pack(f"<{form}", *values) if is_table else table)


@pytest.mark.parametrize("order", "<>")
def test_a_comment_in_utf_16_is_in_the_order_of_what_is_written(order: str):
    comment = b"UNICODE\0" + "käse".encode({"<": "utf-16-le", ">": "utf-16-be"}[order])
    assert exif_written(order, 0x9286, comment) == b"UNICODE\0" + "käse".encode("utf-16-le")


@pytest.mark.parametrize("order", "<>")
def test_a_comment_in_utf_16_that_ends_within_a_character_stays_as_it_is(order: str):
    assert exif_written(order, 0x9286, b"UNICODE\0abc") == b"UNICODE\0abc"


@pytest.mark.parametrize("order", "<>")
def test_ascii_is_not_taken_for_utf_16(order: str):
    assert exif_written(order, 0x9286, b"UNICODE\0ab", kind=2) == "UNICODE\0ab"


def exif_written(order: str, tag: int, value: bytes, kind: int = 7) -> bytes | str:
    """A tag's value in a TIFF that was written with EXIF of that byte order."""
    place, inline = (44, b"") if len(value) > 4 else (0, value.ljust(4, b"\0"))
    entries = struct.pack(f"{order}HHHI", 1, tag, kind, len(value)) + (
        inline or struct.pack(f"{order}I", place)
    )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    main = struct.pack(f"{order}HHHIII", 1, 0x8769, 4, 1, 26, 0)
    block = b"Exif\0\0" + head + main + entries + bytes(4) + value
    data = encode_image(OurImage(RGB, None, Origin(metadata=(("exif-data", block),))), ".tif")
    with Image.open(io.BytesIO(data)) as opened:
        return opened.getexif().get_ifd(0x8769)[tag]
