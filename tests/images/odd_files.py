"""Generated image files of all kinds that users have: modes, depths, profiles, orientations and damage."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyvips
import tifffile
from icc_profiles import gray_profile, rgb_profile
from PIL import Image, ImageCms

HEIGHT, WIDTH = 16, 24
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
DAMAGED = "damaged or cut short"


class Odd(NamedTuple):
    """A file and the expected result of reading it."""

    data: Callable[[], bytes]
    """makes the content of the file"""
    suffix: str
    """suffix of the file name"""
    channels: int = 3
    """number of channels without alpha"""
    bits: int = 8
    """bits per channel in memory"""
    alpha: bool = False
    """whether any pixel is transparent"""
    size: tuple[int, int] = (HEIGHT, WIDTH)
    """height and width in px, upright"""
    notes: tuple[str, ...] = ()
    """text that each note contains, in order"""
    keeps: tuple[str, ...] = ()
    """metadata that the written file must have"""
    profile: bool = False
    """whether the written file has a colour profile"""
    pixels: np.ndarray | None = None
    """exact codes in memory; None if they are not compared"""
    dpi: float = 0.0
    """resolution; 0 if the file has none"""
    error: str = ""
    """text that the error contains; empty if the file can be read"""


def _noise(channels: int = 3, bits: int = 8, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth image with some noise and different corners; gray has no last axis."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [(0.1 + 0.5 * down + 0.3 * across * (k + 1) / 4) for k in range(channels)]
    values = np.stack(planes, -1) + np.random.default_rng(0).uniform(0, 0.05, (height, width, channels))
    codes = (values.clip(0, 1) * ((1 << bits) - 1)).round().astype(np.uint8 if bits <= 8 else np.uint16)
    return codes[..., 0] if channels == 1 else codes


def _alpha(bits: int = 8) -> np.ndarray:
    return np.linspace(0, (1 << bits) - 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(f"u{bits // 8}")


RGB, GRAY, RGB16, GRAY16 = _noise(), _noise(1), _noise(3, 16), _noise(1, 16)
RGBA, RGBA16 = np.dstack([RGB, _alpha()]), np.dstack([RGB16, _alpha(16)])


def pillow(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    """Encode as TIFF with tifffile."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def vips(pixels: np.ndarray, suffix: str, interpretation: str = "", **options: Any) -> bytes:
    """Encode with libvips."""
    image = pyvips.Image.new_from_array(pixels)
    return image.copy(interpretation=interpretation or image.interpretation).write_to_buffer(
        suffix, **options
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    rows: bytes, bits: int, kind: int, *, width: int = WIDTH, height: int = HEIGHT, before: bytes = b""
) -> bytes:
    """A PNG from rows that begin with their filter byte; `before` are chunks before the data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + data + chunk(b"IEND", b"")


def low_bits(bits: int) -> bytes:
    """A gray PNG with 1, 2 or 4 bits per pixel: a ramp in each row."""
    codes = np.arange(WIDTH) % (1 << bits)
    packed = np.packbits(((codes[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()).tobytes()
    return png((b"\0" + packed) * HEIGHT, bits, 0)


def turned(orientation: int, kind: str) -> bytes:
    """RGB stored with an EXIF orientation."""
    stored = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB), 7: np.rot90(RGB, 2).transpose(1, 0, 2), 8: np.rot90(RGB, -1),
    }  # fmt: skip
    return pillow(np.ascontiguousarray(stored[orientation]), kind, exif=exif(orientation))


def exif(orientation: int = 1) -> Image.Exif:
    """A camera's EXIF: maker, time, place."""
    found = Image.Exif()
    found.update({0x0112: orientation, 0x010F: "Maker", 0x0110: "Model"})
    found.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    found.get_ifd(0x8825)[1] = "N"
    return found


def iptc() -> bytes:
    """Photoshop's blocks with a caption, as in a JPEG's APP13."""
    records = b"\x1c\x02\x78\0\x07caption"
    blocks = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records
    return b"\xff\xed" + struct.pack(">H", 2 + 14 + len(blocks)) + b"Photoshop 3.0\0" + blocks


def after_start(jpeg: bytes, segment: bytes) -> bytes:
    """Insert a segment after the first two bytes of a JPEG."""
    return jpeg[:2] + segment + jpeg[2:]


def cut(data: Callable[[], bytes], share: float) -> bytes:
    """The first `share` of a file."""
    whole = data()
    return whole[: int(len(whole) * share)]


def bad_crc() -> bytes:
    """A PNG with a damaged byte in its data."""
    data = bytearray(PNG())
    data[data.find(b"IDAT") + 40] ^= 0xFF
    return bytes(data)


def jpeg_and_zip() -> bytes:
    """A JPEG that is also a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inside.txt", "hello")
    return JPEG() + file.getvalue()


def palette(transparent: bool) -> bytes:
    """A PNG with a palette of seven colours, one of them transparent if `transparent`."""
    return pillow(Image.fromarray(RGB).quantize(7), "PNG", **({"transparency": 2} if transparent else {}))


def frames(kind: str) -> bytes:
    """An animation of three frames; the first is RGB."""
    more = [Image.fromarray(RGB[::-1].copy()), Image.fromarray(RGB[:, ::-1].copy())]
    return pillow(RGB, kind, save_all=True, append_images=more, duration=100, **LOSSLESS.get(kind, {}))


def tagged(pixels: np.ndarray, interpretation: str, suffix: str, profile: bytes) -> bytes:
    """Encode with libvips and a profile, for depths that Pillow does not write."""
    image = pyvips.Image.new_from_array(pixels).copy(interpretation=interpretation)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image.write_to_buffer(suffix)


def lab(bits: int) -> bytes:
    """A Lab TIFF: L* along the columns, some a*, some -b*."""
    lightness = np.linspace(10, 90, WIDTH)
    if bits == 16:
        row = np.stack(
            [lightness / 100 * 65535, np.full(WIDTH, 20 * 256), np.full(WIDTH, 65536 - 15 * 256)], -1
        )
        return tiff(np.tile(row.round().astype(np.uint16), (HEIGHT, 1, 1)), photometric="cielab")
    row = np.stack([lightness / 100 * 255, np.full(WIDTH, 20), np.full(WIDTH, 256 - 15)], -1)
    return tiff(np.tile(row.round().astype(np.uint8), (HEIGHT, 1, 1)), photometric="cielab")


def commented() -> bytes:
    """A PNG with a comment and a resolution."""
    comment, resolution = chunk(b"tEXt", b"Title\0hello"), chunk(b"pHYs", struct.pack(">IIB", 5906, 5906, 1))
    data = PNG()
    return data[:33] + comment + resolution + data[33:]


def turned_tiff() -> bytes:
    """A TIFF with orientation 6 and EXIF in its own directories."""
    image = Image.fromarray(np.ascontiguousarray(np.rot90(RGB)))
    return pillow(image, "TIFF", exif=exif(6), dpi=(400, 400))


def tiff_bomb() -> bytes:
    """A TIFF whose header declares far more pixels than it has."""
    entries = ((256, 4, 20_000), (257, 4, 20_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
               (278, 4, 20_000), (279, 4, 400_000_000))  # fmt: skip
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(4)


def preview_first(raw: bool = False) -> bytes:
    """A TIFF whose first page is a preview; with `raw`, a DNG, recognisable only by its version tag."""
    file, version = io.BytesIO(), [(50706, 1, 4, bytes([1, 4, 0, 0]), True)]
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB[::4, ::4].copy(), metadata=None, subfiletype=1, extratags=version if raw else [])
        writer.write(RGB, metadata=None)
    return file.getvalue()


def lab_profile() -> bytes:
    """A profile for L*a*b* images, which does not fit RGB images."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def srgb_profile() -> bytes:
    """An sRGB profile written by Pillow, which differs from that of libvips."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True, "exact": True}}
CMYK = Image.merge("CMYK", [Image.fromarray(plane.copy()) for plane in np.moveaxis(_noise(4) // 2, 2, 0)])
JPEG, PNG = partial(pillow, RGB, "JPEG", quality=95, subsampling=0), partial(pillow, RGB, "PNG")
PROGRESSIVE = partial(pillow, RGB, "JPEG", progressive=True)
TIFF, LZW = partial(tiff, RGB), partial(pillow, RGB, "TIFF", compression="tiff_lzw")
WEBP, GIF, AVIF = partial(pillow, RGB, "WEBP"), partial(pillow, RGB, "GIF"), partial(pillow, RGB, "AVIF")
FLOAT = (GRAY16 / 65535).astype(np.float32)
CMYK_NOTE = ("CMYK without a usable profile",)
MISFIT = ("does not fit the image, and was ignored",)

ODD_FILES: dict[str, Odd] = {
    # JPEG
    "jpeg": Odd(JPEG, ".jpg"),
    "jpeg progressive": Odd(PROGRESSIVE, ".jpeg"),
    "jpeg gray": Odd(partial(pillow, GRAY, "JPEG"), ".jpg", channels=1),
    "jpeg 4:2:0": Odd(partial(pillow, RGB, "JPEG", subsampling=2), ".jpg"),
    "jpeg rgb, not ycc": Odd(partial(pillow, RGB, "JPEG", keep_rgb=True), ".jpg"),
    "jpeg cmyk": Odd(partial(pillow, CMYK, "JPEG"), ".jpg", notes=CMYK_NOTE),
    "jpeg ycck": Odd(partial(vips, np.asarray(CMYK), ".jpg", "cmyk"), ".jpg", notes=CMYK_NOTE),
    "jpeg exif": Odd(partial(pillow, RGB, "JPEG", exif=exif()), ".jpg", keeps=("exif",)),
    "jpeg xmp": Odd(partial(pillow, RGB, "JPEG", xmp=XMP), ".jpg", keeps=("xmp",)),
    "jpeg iptc": Odd(lambda: after_start(JPEG(), iptc()), ".jpg", keeps=("iptc",)),
    "jpeg dpi": Odd(partial(pillow, RGB, "JPEG", dpi=(300, 300)), ".jpg", dpi=300),
    "jpeg and zip": Odd(jpeg_and_zip, ".jpg"),
    "jpeg damaged exif": Odd(partial(pillow, RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), ".jpg"),
    "jpeg 1x1": Odd(partial(pillow, RGB[:1, :1].copy(), "JPEG"), ".jpg", size=(1, 1)),
    **{
        f"jpeg orientation {k}": Odd(partial(turned, k, "JPEG"), ".jpg", keeps=("exif",)) for k in range(1, 9)
    },
    # Profiles
    "srgb": Odd(
        partial(pillow, RGB, "PNG", icc_profile=srgb_profile()), ".png", profile=True, pixels=RGB
    ),
    **{
        name: Odd(partial(pillow, RGB, "JPEG", quality=95, icc_profile=rgb_profile(name)), ".jpg", profile=True)
        for name in ("adobe", "p3", "prophoto")
    },
    "prophoto 16 bit": Odd(
        partial(tagged, RGB16, "rgb16", ".png", rgb_profile("prophoto")), ".png", bits=16, profile=True
    ),
    "gray gamma 1.8": Odd(
        partial(pillow, GRAY, "PNG", icc_profile=gray_profile(1.8)), ".png", channels=1
    ),
    "gray gamma 2.2": Odd(
        partial(pillow, GRAY, "JPEG", icc_profile=gray_profile(2.2)), ".jpg", channels=1
    ),
    "cmyk profile": Odd(
        lambda: pillow(CMYK, "JPEG", icc_profile=pyvips.Operation.call("profile_load", "cmyk")), ".jpg", profile=True
    ),
    "profile damaged": Odd(
        partial(pillow, RGB, "TIFF", icc_profile=b"no profile"), ".tif", notes=MISFIT, profile=True, pixels=RGB
    ),
    "profile cut": Odd(
        partial(pillow, RGB, "TIFF", icc_profile=rgb_profile("adobe")[:300]),
        ".tif", notes=MISFIT, profile=True, pixels=RGB,
    ),
    "profile of lab": Odd(
        partial(pillow, RGB, "JPEG", icc_profile=lab_profile()), ".jpg", notes=MISFIT, profile=True
    ),
    "profile of gray for rgb": Odd(
        partial(pillow, RGB, "TIFF", icc_profile=gray_profile(1.8)), ".tif", notes=MISFIT, profile=True, pixels=RGB
    ),
    "profile of rgb for gray": Odd(
        partial(pillow, GRAY, "TIFF", icc_profile=srgb_profile()),
        ".tif", channels=1, notes=MISFIT, pixels=GRAY[..., None],
    ),
    # PNG
    "png": Odd(PNG, ".png", pixels=RGB),
    **{f"png {bits} bit": Odd(partial(low_bits, bits), ".png", channels=1) for bits in (1, 2, 4)},
    "png gray": Odd(partial(pillow, GRAY, "PNG"), ".png", channels=1, pixels=GRAY[..., None]),
    "png gray 16": Odd(partial(pillow, GRAY16, "PNG"), ".png", channels=1, bits=16, pixels=GRAY16[..., None]),
    "png rgb 16": Odd(partial(vips, RGB16, ".png"), ".png", bits=16, pixels=RGB16),
    "png rgba 16": Odd(partial(vips, RGBA16, ".png", "rgb16"), ".png", bits=16, alpha=True, pixels=RGB16),
    "png gray alpha": Odd(
        partial(pillow, Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(_alpha())]), "PNG"),
        ".png", channels=1, alpha=True, pixels=GRAY[..., None],
    ),
    "png gray alpha 16": Odd(
        partial(vips, np.dstack([GRAY16, _alpha(16)]), ".png", "grey16"), ".png", channels=1, bits=16, alpha=True
    ),
    "png rgba": Odd(partial(pillow, RGBA, "PNG"), ".png", alpha=True, pixels=RGB),
    "png one transparent colour": Odd(
        partial(pillow, RGB, "PNG", transparency=tuple(RGB[3, 4].tolist())), ".png", alpha=True, pixels=RGB
    ),
    "png palette": Odd(partial(palette, False), ".png"),
    "png palette transparent": Odd(partial(palette, True), ".png", alpha=True),
    "png interlaced": Odd(partial(vips, RGB, ".png", interlace=True), ".png", pixels=RGB),
    "png exif turned": Odd(partial(turned, 6, "PNG"), ".png", keeps=("exif",), pixels=RGB),
    "png comment, dpi": Odd(commented, ".png", keeps=("Title",), dpi=150, pixels=RGB),
    "png animated": Odd(partial(frames, "PNG"), ".png", notes=("still image of its 3",), pixels=RGB),
    "png linear": Odd(
        lambda: PNG()[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + PNG()[33:],
        ".png", notes=("gAMA 1",), profile=True,
    ),
    "png 1x5000": Odd(partial(pillow, _noise(3, 8, 1, 5000), "PNG"), ".png", size=(1, 5000)),
    # TIFF
    "tiff": Odd(TIFF, ".tif", pixels=RGB),
    "tiff 1 bit, fax": Odd(
        partial(pillow, Image.fromarray(GRAY).convert("1"), "TIFF", compression="group4"), ".tif", channels=1
    ),
    "tiff lzw": Odd(LZW, ".tif", pixels=RGB),
    "tiff deflate": Odd(partial(pillow, RGB, "TIFF", compression="tiff_adobe_deflate"), ".tiff", pixels=RGB),
    "tiff packbits": Odd(partial(pillow, RGB, "TIFF", compression="packbits"), ".tif", pixels=RGB),
    "tiff jpeg": Odd(partial(pillow, RGB, "TIFF", compression="jpeg"), ".tif"),
    "tiff rgb 16": Odd(partial(tiff, RGB16, photometric="rgb"), ".tif", bits=16, pixels=RGB16),
    "tiff big-endian": Odd(
        partial(tiff, GRAY16, byteorder=">"), ".tif", channels=1, bits=16, pixels=GRAY16[..., None]
    ),
    "tiff bigtiff": Odd(partial(tiff, RGB, bigtiff=True), ".tif", pixels=RGB),
    "tiff tiled": Odd(partial(tiff, RGB, tile=(16, 16), photometric="rgb"), ".tif", pixels=RGB),
    "tiff planar": Odd(
        lambda: tiff(np.moveaxis(RGB, 2, 0).copy(), photometric="rgb", planarconfig="separate"), ".tif", pixels=RGB
    ),
    "tiff white is zero": Odd(
        partial(tiff, GRAY, photometric="miniswhite"), ".tif", channels=1, pixels=255 - GRAY[..., None]
    ),
    "tiff rgba 16": Odd(
        partial(tiff, RGBA16, photometric="rgb", extrasamples=["unassalpha"]),
        ".tif", bits=16, alpha=True, pixels=RGB16,
    ),
    "tiff five channels": Odd(
        partial(
            tiff, np.dstack([RGBA, GRAY]), photometric="rgb", extrasamples=["unassalpha", "unspecified"]
        ),
        ".tif", alpha=True, notes=("1 further channel was",), pixels=RGB,
    ),
    "tiff infrared channel": Odd(
        partial(tiff, RGBA, photometric="rgb", extrasamples=["unspecified"]),
        ".tif", notes=("1 further channel was",), pixels=RGB,
    ),
    "tiff gray and another 16": Odd(
        partial(
            tiff, np.dstack([GRAY16, GRAY16]), photometric="minisblack", extrasamples=["unspecified"],
            planarconfig="contig",
        ),
        ".tif", channels=1, bits=16, notes=("1 further channel was",), pixels=GRAY16[..., None],
    ),
    "tiff infrared, then transparency": Odd(
        partial(
            tiff, np.dstack([RGB, GRAY, _alpha()]), photometric="rgb", extrasamples=["unspecified", "unassalpha"]
        ),
        ".tif", alpha=True, notes=("1 further channel was",), pixels=RGB,
    ),
    "tiff float": Odd(
        partial(tiff, FLOAT), ".tif", channels=1, bits=16, notes=("0 to 1,",), pixels=GRAY16[..., None]
    ),
    "tiff float rgb to 65535": Odd(
        lambda: tiff(RGB16.astype(np.float32), photometric="rgb"),
        ".tif", bits=16, notes=("0 to 65535,",), pixels=RGB16,
    ),
    "tiff float rgb to 255": Odd(
        lambda: tiff(RGB.astype(np.float32), photometric="rgb"), ".tif", bits=16, notes=("0 to 255,",),
        pixels=RGB.astype(np.uint16) * 257,
    ),
    "tiff 32 bit of 16": Odd(
        lambda: tiff(GRAY16.astype(np.uint32)), ".tif", channels=1, bits=16,
        notes=("32-bit values were read as 16-bit ones",), pixels=GRAY16[..., None],
    ),
    "tiff 32 bit of 8": Odd(
        lambda: tiff(GRAY.astype(np.uint32)), ".tif", channels=1,
        notes=("32-bit values were read as 8-bit ones",), pixels=GRAY[..., None],
    ),
    "tiff half": Odd(lambda: tiff(FLOAT.astype(np.float16)), ".tif", channels=1, bits=16, notes=("0 to 1,",)),
    "tiff 32 bit": Odd(
        lambda: tiff(GRAY16.astype(np.uint32) << 16), ".tif", channels=1, bits=16,
        notes=("32-bit values were cut to 16 bits",), pixels=GRAY16[..., None],
    ),
    "tiff lab": Odd(partial(lab, 8), ".tif"),
    "tiff lab 16": Odd(partial(lab, 16), ".tif", bits=16),
    "tiff cmyk": Odd(partial(pillow, CMYK, "TIFF"), ".tif", notes=CMYK_NOTE),
    "tiff cmyk 16": Odd(
        lambda: tiff(np.asarray(CMYK).astype(np.uint16) * 257, photometric="separated"),
        ".tif", bits=16, notes=CMYK_NOTE,
    ),
    "tiff palette": Odd(
        partial(tiff, GRAY, photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256) * 85),
        ".tif",
    ),
    "tiff three pages": Odd(
        partial(pillow, RGB, "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)] * 2),
        ".tif", notes=("first of its 3 pages",), pixels=RGB,
    ),
    "tiff preview first": Odd(preview_first, ".tif", notes=("page 2",), pixels=RGB),
    "tiff turned": Odd(turned_tiff, ".tif", keeps=("exif",), dpi=400, pixels=RGB),
    "tiff xmp": Odd(
        partial(tiff, RGB, extratags=[(700, 1, len(XMP), XMP, True)]), ".tif", keeps=("xmp",), pixels=RGB
    ),
    # WebP, GIF, AVIF, and what Pillow reads
    "webp": Odd(WEBP, ".webp"),
    "webp lossless alpha": Odd(
        partial(pillow, RGBA, "WEBP", **LOSSLESS["WEBP"]), ".webp", alpha=True, pixels=RGB
    ),
    "webp lossy alpha": Odd(partial(pillow, RGBA, "WEBP"), ".webp", alpha=True),
    "webp animated": Odd(partial(frames, "WEBP"), ".webp", notes=("first of its 3 frames",)),
    "webp turned": Odd(partial(turned, 8, "WEBP"), ".webp", keeps=("exif",)),
    "gif": Odd(GIF, ".gif"),
    "gif animated": Odd(partial(frames, "GIF"), ".gif", alpha=True, notes=("first of its 3 frames",)),
    "gif transparent": Odd(
        lambda: pillow(Image.fromarray(RGB).quantize(9), "GIF", transparency=1), ".gif", alpha=True
    ),
    "avif": Odd(AVIF, ".avif"),
    "avif alpha": Odd(partial(pillow, RGBA, "AVIF"), ".avif", alpha=True),
    "avif frames": Odd(partial(frames, "AVIF"), ".avif", notes=("the first image of a sequence",)),
    "avif turned": Odd(partial(turned, 6, "AVIF"), ".avif", keeps=("exif",)),
    **{
        f"avif {bits} bit": Odd(
            partial(vips, RGB16, ".avif", bitdepth=bits, lossless=True), ".avif", bits=16
        )
        for bits in (10, 12)
    },
    "bmp": Odd(partial(pillow, RGB, "BMP"), ".bmp", pixels=RGB),
    "jpeg 2000": Odd(partial(pillow, RGB, "JPEG2000"), ".jp2", pixels=RGB),
    "pgm 16": Odd(partial(pillow, GRAY16, "PPM"), ".pgm", channels=1, bits=16, pixels=GRAY16[..., None]),
    # Wrong suffixes
    "png named jpg": Odd(PNG, ".jpg", notes=("it is PNG",), pixels=RGB),
    "jpeg without a name": Odd(JPEG, "", notes=("it is JPEG",)),
    # Files that are refused
    "raw": Odd(lambda: preview_first(raw=True), ".dng", error="raw file"),
    "empty": Odd(bytes, ".jpg", error="empty file"),
    "text": Odd(lambda: b"this is text\n" * 50, ".jpg", error="it is none of JPEG"),
    "svg": Odd(
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', ".svg", error="it is none of JPEG"
    ),
    "postscript": Odd(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", ".tif", error="it is none of JPEG"),
    "html": Odd(lambda: b"<!doctype html><title>404</title>", ".png", error="it is none of JPEG"),
    "first bytes alone": Odd(lambda: b"\x89PNG\r\n\x1a\n", ".png", error=DAMAGED),
    "bomb": Odd(lambda: png(b"", 1, 0, width=30_000, height=15_000), ".png", error="450,000,000"),
    "bomb tiff": Odd(tiff_bomb, ".tif", error="more than 200,000,000"),
    "bomb bmp": Odd(
        lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 20_000, 20_000, 1, 24, 0, 0, 1, 1, 0, 0),
        ".bmp", error="400,000,000",
    ),
    "bad checksum": Odd(bad_crc, ".png", error=DAMAGED),
    "signed": Odd(lambda: tiff(GRAY.astype(np.int16) - 99), ".tif", channels=1, error="signed"),
    "64 bit": Odd(lambda: tiff(FLOAT.astype(np.float64)), ".tif", error="save it with 8, 16 or 32 bits per"),
    "complex": Odd(lambda: tiff(FLOAT.astype(np.complex64)), ".tif", error="no decoder reads"),
    "nan": Odd(lambda: tiff(np.full((4, 4), np.nan, np.float32)), ".tif", error="NaN"),
    "heic": Odd(lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), ".heic", error="pip install pillow-heif"),
    **{
        f"{name} cut at {share}": Odd(partial(cut, whole, share), suffix, error=DAMAGED)
        for name, whole, suffix in (
            ("jpeg", JPEG, ".jpg"), ("progressive", PROGRESSIVE, ".jpg"), ("png", PNG, ".png"), ("tiff", TIFF, ".tif"),
            ("lzw", LZW, ".tif"), ("webp", WEBP, ".webp"), ("gif", GIF, ".gif"), ("avif", AVIF, ".avif"),
        )
        for share in (0.2, 0.6, 0.95)
    },
    "jpeg without its last bytes": Odd(lambda: JPEG()[:-2], ".jpg", error=DAMAGED),
}  # fmt: skip
"""By name."""
