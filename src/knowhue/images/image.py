"""Which files count as images, by one rule for training and colouring, and the decoded `Image`.

An `Image` holds pixels in the file's own bit depth, transparency, and the metadata needed to write it back.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from knowhue.storage import from_json


class ImageFormat(NamedTuple):
    """An image file format that can be read."""

    suffixes: tuple[str, ...]
    """file name suffixes in lower case; the first is the usual one"""
    starts: tuple[bytes, ...] = ()
    """first bytes of its files; empty for formats that `recognise` detects by other rules"""
    loader: str = ""
    """libvips loader; if empty, Pillow's `plugin` reads the format, and if both are empty, a separate package does"""
    plugin: str = ""
    frames: str = "frames"
    """plural noun for its pages or frames in messages"""
    packed: int = 32  # few files are compressed more tightly
    """estimated pixel bytes per file byte, used where libvips does not read the header"""


_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNM_STARTS = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
FORMATS: Mapping[str, ImageFormat] = {
    "JPEG": ImageFormat((".jpg", ".jpeg", ".jpe", ".jfif"), (b"\xff\xd8\xff",), "jpegload"),
    "PNG": ImageFormat((".png", ".apng"), (b"\x89PNG\r\n\x1a\n",), "pngload"),
    "TIFF": ImageFormat((".tif", ".tiff"), _TIFF_STARTS, "tiffload", "TIFF", "pages"),
    "WebP": ImageFormat((".webp",), (), "webpload"),
    "GIF": ImageFormat((".gif",), (b"GIF8",), "gifload"),
    "AVIF": ImageFormat((".avif",), (), "heifload", frames="images"),
    "HEIC": ImageFormat((".heic", ".heif")),
    "BMP": ImageFormat((".bmp", ".dib"), (b"BM",), plugin="BMP", packed=1),
    "JPEG 2000": ImageFormat((".jp2", ".j2k"), (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), plugin="JPEG2000"),
    "PNM": ImageFormat((".ppm", ".pgm", ".pbm", ".pnm"), _PNM_STARTS, plugin="PPM", packed=1),
}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
SUFFIXES = frozenset(suffix for known in FORMATS.values() for suffix in known.suffixes)

LEDGER = "colorized.jsonl"  # file that `inference.ledger` writes beside the images of a folder
STATE = ".knowhue"  # state folder in an archive's output; hidden, so that it is not searched for images
LEDGERS = f"{STATE}/ledgers"  # folder of the shards' ledgers, in an archive's output
ARCHIVE_PLAN = f"{STATE}/archive.json"  # file that `archive` writes in an archive's output
COLOURED = "coloured by knowhue"
"""Reason to skip an image that a ledger lists as output: its colours are computed, so it is not ground truth."""
_SYSTEM_NAMES = frozenset({
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",  # zip archives of macOS, Windows
    "@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "@__thumb",  # NAS
    "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder", "temporary items",
})  # fmt: skip


UNREADABLE = "unreadable folder"
LINK_LOOP = "linking to a folder that contains it"
MOST_KINDS = 6  # most kinds of reasons that a sentence names; a folder can hold any number of file types


class FoundFile(NamedTuple):
    """A file below a folder, or a folder that was not entered."""

    path: Path
    """begins with the folder that was walked"""
    skipped: str = ""
    """why it is left out, in words that can follow a number of files; empty for an image"""


def recognise(head: bytes) -> str | None:
    r"""The key of `FORMATS` that the first bytes of a file match; None if there is no match.

    >>> recognise(b"GIF89a...")
    'GIF'
    >>> recognise(b"<svg>") is None
    True
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        brands = head[8 : max(12, int.from_bytes(head[:4], "big"))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if any(brand in brands for brand in _HEIF_BRANDS) else None
    return next((name for name, known in FORMATS.items() if head.startswith(known.starts)), None)


def why_hidden(name: str) -> str:
    """Why a file or folder of this name is skipped; empty if it is not.

    Skipped are names that begin with a dot (including macOS resource forks, `._NAME`) and names of system files.

    >>> why_hidden("._reef.jpg"), why_hidden("@eaDir"), why_hidden("@home")
    ('hidden', 'of the operating system', '')
    """
    if name.startswith("."):
        return "hidden"
    return "of the operating system" if name.casefold() in _SYSTEM_NAMES else ""


def walk(
    root: Path, suffixes: Collection[str] = SUFFIXES, avoid: Path | None = None, with_coloured: bool = False
) -> Iterator[FoundFile]:
    """List everything below a folder, sorted by name, except Knowhue's own ledgers; links to folders come last.

    Links are followed. Each real folder is entered once, under its real name if that is below `root`. Broken links,
    devices and pipes count as files; reading them raises an error that says what they are.

    Args:
        root: the folder to search.
        suffixes: of images, lower case.
        avoid: a folder that is left out without being reported, such as the output folder.
        with_coloured: whether to include images that `knowhue colorize` wrote into subfolders.
    """
    entered = {identity(avoid)} if avoid and avoid.exists() and not avoid.samefile(root) else set()
    silent = set(entered)
    folders, links = [root], []
    coloured: set[Path] = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            here, entries = identity(folder), _entries(folder)
            if folder != root and not with_coloured:
                coloured.update(_coloured_images(folder))
        except OSError as error:
            yield FoundFile(folder, f"{UNREADABLE}: {error.strerror}")
            continue
        if here in entered:
            if here not in silent:
                yield FoundFile(folder, "linking to a folder that is already listed")
            continue
        entered.add(here)
        inner = []
        for entry, is_folder in entries:
            is_coloured = coloured and entry in coloured
            reason = COLOURED if is_coloured else _why_skipped(entry, is_folder, suffixes)
            if not reason and is_folder:
                (links if entry.is_symlink() else inner).append(entry)
            elif entry.name != LEDGER:
                yield FoundFile(entry, reason)
        folders += reversed(inner)  # `folders` is a stack: the first name is popped next


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """Entries of a folder, sorted by name, and whether each is a folder or a link to one; needs no `stat` per entry."""
    with os.scandir(folder) as scanned:
        found = sorted(scanned, key=attrgetter("name"))
    return [(folder / each.name, _is_folder(each)) for each in found]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; False if permissions prevent finding out."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _coloured_images(folder: Path) -> Iterator[Path]:
    """Images that `knowhue colorize` wrote into a folder and its subfolders; originals may be beside them."""
    for ledger in (folder / LEDGER, *(folder / LEDGERS).glob("*.jsonl")):
        if ledger.is_file():
            yield from (folder / each for each in outputs_in(ledger.read_bytes()))


def outputs_in(ledger: bytes) -> Iterator[str]:
    """Output paths in the lines of a ledger, relative to its folder; other lines are ignored."""
    for line in ledger.splitlines():
        with suppress(ValueError, TypeError, KeyError):
            yield str(from_json(line)["output"])


def _why_skipped(entry: Path, is_folder: bool, suffixes: Collection[str]) -> str:
    """Why a file is not an image, or why a folder is not entered; empty if it is."""
    reason = why_hidden(entry.name)
    if not reason and is_folder:
        above = entry.absolute().parents if entry.is_symlink() else ()
        return LINK_LOOP if any(entry.samefile(each) for each in above) else ""
    return reason or ("" if entry.suffix.lower() in suffixes else other_type(entry.suffix))


def other_type(suffix: str) -> str:
    """Why a file with another suffix than those that are searched for is skipped."""
    return f"of another type ({suffix or 'no suffix'})"


def broken_link(link: Path) -> str:
    return f"a broken link ({link.readlink()} does not exist)"


def kinds_of(reasons: Iterable[str]) -> Counter[str]:
    """Count reasons by kind, most frequent first; the part of a reason that concerns a single file is ignored.

    >>> kinds_of(["near-gray: 3", "near-gray: 4", "duplicate of a.jpg", "hidden"])
    Counter({'near-gray': 2, 'duplicate': 1, 'hidden': 1})
    """
    counts = Counter(reason.partition(":")[0].partition(" of ")[0] or reason for reason in reasons)
    return Counter(dict(counts.most_common()))


def counts_in_words(reasons: Iterable[str]) -> str:
    """The kinds of reasons with their counts, in words; all but the `MOST_KINDS` most frequent are counted together.

    >>> counts_in_words(["hidden", "of another type (.txt)", "hidden"])
    '2 hidden, 1 of another type (.txt)'
    """
    kinds = list(kinds_of(reasons).items())
    rest = sum(count for _, count in kinds[MOST_KINDS:])
    named = [f"{count} {kind}" for kind, count in kinds[:MOST_KINDS]]
    return ", ".join([*named, f"{rest} of other kinds"] if rest else named)


def identity(path: Path) -> tuple[int, int]:
    """Device and inode, which all links and spellings of a path share."""
    status = path.stat()
    return status.st_dev, status.st_ino


Pixels = NDArray[Any]  # (H, W, 1 or 3) uint8 or uint16, C-contiguous, upright, sRGB-encoded
Metadata = tuple[tuple[str, bytes], ...]
"""Blocks of EXIF, XMP, IPTC, Photoshop and GeoTIFF data by their libvips names."""
Texts = tuple[tuple[str, str], ...]
"""Pairs of keyword and text, as in PNG; a text without a keyword has the keyword `COMMENT`."""
COMMENT = "Comment"
Resolution = tuple[float, float]  # pixels per mm, horizontal and vertical


class ComputedBy(NamedTuple):
    """The model that computed the colours of an image."""

    model: str
    fingerprint: str
    """distinguishes models of the same name"""


class Origin(NamedTuple):
    """What is known of an image's file besides the pixels."""

    suffix: str = ""
    """usual suffix of the file's format, such as `.jpg`, whatever the file's name"""
    profile: bytes | None = None
    """ICC profile to write: the file's own if it describes RGB, sRGB's if the file had another one, None if none"""
    metadata: Metadata = ()
    """metadata blocks as read; their orientation no longer applies, because the pixels are upright"""
    texts: Texts = ()
    """comments and texts with keywords"""
    pixels_per_mm: Resolution | None = None
    """resolution of the upright image; None if the file gives none"""
    bits: int = 8
    """bits per channel in the file"""
    is_lossless: bool = False
    """whether a file of a format with lossy and lossless modes (WebP) was lossless"""
    notes: tuple[str, ...] = ()
    """sentences for the user on how the file was read"""
    computed_by: ComputedBy | None = None
    """the model that computed the colours; None if they are the file's own"""


class Image(NamedTuple):
    """A decoded image."""

    pixels: Pixels
    """(H, W, C): C is 1 if the file is stored as gray, otherwise 3, even if all its colours are gray"""
    alpha: NDArray[Any] | None = None
    """(H, W), the pixels' data type, 0 for transparent; None if opaque"""
    origin: Origin = Origin()
    """what is known of its file"""

    @classmethod
    def of(cls, pixels: Pixels) -> "Image":
        """An image that does not come from a file."""
        return cls(np.ascontiguousarray(pixels))


def require_pixels(pixels: Pixels) -> None:
    """Check that an array is valid as `Pixels`; a `ValueError` if its shape, data type or memory layout is not."""
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        raise ValueError(
            f"`pixels` should be (H, W, 1 or 3), H and W 1 or more. Found `pixels.shape = {pixels.shape}`."
        )
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"`pixels` should be uint8 or uint16. Found `pixels.dtype = {pixels.dtype}`.")
    if not pixels.flags.c_contiguous:
        raise ValueError(
            f"`pixels` should be C-contiguous. Found `pixels.strides = {pixels.strides}`. Pass "
            "`numpy.ascontiguousarray(pixels)`."
        )


def require_image(image: Image) -> None:
    """Check that the pixels and transparency of an image are valid; a `ValueError` if one is not."""
    require_pixels(image.pixels)
    alpha, expected = image.alpha, (image.pixels.shape[:2], image.pixels.dtype)
    if alpha is not None and (alpha.shape, alpha.dtype) != expected:
        raise ValueError(
            f"`alpha` should be (H, W) of the pixels' type, {expected[0]} {expected[1]}. Found `alpha.shape = "
            f"{alpha.shape}`, `alpha.dtype = {alpha.dtype}`."
        )


def flattened(image: Image) -> Pixels:
    """The pixels composited over white, in their own bit depth: colours of transparent pixels have no effect."""
    pixels, alpha = image.pixels, image.alpha
    top = np.iinfo(pixels.dtype).max
    if alpha is None or alpha.min() == top:
        return pixels
    share = alpha[..., None].astype(np.float32) / top
    return (pixels * share + top * (1 - share)).round().astype(pixels.dtype)


def to_rgb8(image: Image) -> NDArray[np.uint8]:
    """An image as networks see it in training: (H, W, 3) 8-bit sRGB, composited over white.

    >>> to_rgb8(Image.of(np.full((1, 1, 1), 65535, np.uint16))).tolist()
    [[[255, 255, 255]]]
    """
    pixels = to_8_bits(flattened(image))
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))  # a view, which does not copy gray three times


def to_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels (H, W, C) rounded to 8 bits."""
    # 257 = 65535 / 255; dropping the low byte would darken the image by half a code value
    return pixels if pixels.dtype == np.uint8 else (pixels / 257).round().astype(np.uint8)
