"""Which files are images, by one rule for training and for colouring, and what a decoded one is.

Pixels in their own depth, transparency, and all that is needed to write it as it came.
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
    """A format that can be read."""

    suffixes: tuple[str, ...]
    """lower case; the first is the usual one"""
    starts: tuple[bytes, ...] = ()
    """how its files begin; see `recognise` for the others"""
    loader: str = ""
    """in libvips, or else `plugin` in Pillow; neither where the decoder is a package of its own"""
    plugin: str = ""
    frames: str = "frames"
    """what its pages are called"""
    packed: int = 32  # few are packed more tightly
    """bytes of pixels in a byte of file, where libvips does not read the header"""


_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
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
    "PNM": ImageFormat(
        (".ppm", ".pgm", ".pbm", ".pnm"), tuple(b"P%d" % kind for kind in range(1, 7)), plugin="PPM", packed=1
    ),
}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
SUFFIXES = frozenset(suffix for known in FORMATS.values() for suffix in known.suffixes)

LEDGER = "colorized.jsonl"
"""What `inference.ledger` writes beside the images of a folder."""
STATE = ".knowhue"
"""Folder of an archive's output with what is known of it: hidden, so that nobody takes it for images."""
LEDGERS = f"{STATE}/ledgers"
"""Folder of the ledgers of an archive's shards, in its output."""
ARCHIVE_PLAN = f"{STATE}/archive.json"
"""What `archive` writes in the output of an archive."""
COLOURED = "coloured by knowhue"
"""Why an image that a ledger names as made is skipped: computed colours are neither originals nor truth."""
_SYSTEM_NAMES = frozenset({
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",  # zip archives of macOS, Windows
    "@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "@__thumb",  # NAS
    "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder", "temporary items",
})  # fmt: skip


UNREADABLE = "unreadable folder"
CIRCLE = "linking to a folder around it"
MOST_KINDS = 6
"""Kinds of reasons that a sentence names: files may end in as many ways as there are files."""


class Found(NamedTuple):
    """A file below a folder, or a folder that was not entered."""

    path: Path
    """below the folder that was walked"""
    skipped: str = ""
    """why it is left out; nothing for an image"""


def recognise(head: bytes) -> str | None:
    r"""The key of `FORMATS` that data begin as, None if they begin as none.

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
    """Why a file or folder of this name is left alone, or nothing.

    Names that begin with a dot (among them `._NAME`, macOS' resource forks), and what systems put beside images.

    >>> why_hidden("._reef.jpg"), why_hidden("@eaDir"), why_hidden("@home")
    ('hidden', 'of the system', '')
    """
    if name.startswith("."):
        return "hidden"
    return "of the system" if name.casefold() in _SYSTEM_NAMES else ""


def walk(
    root: Path, suffixes: Collection[str] = SUFFIXES, avoid: Path | None = None, takes_coloured: bool = False
) -> Iterator[Found]:
    """Everything below a folder, by name, but for what knowhue itself writes beside images; links to folders last.

    Links to files and folders are followed, each real folder is entered once, under its own name if it has one here.
    A link that leads nowhere, a device and a pipe count as files: whoever reads them will say so.

    Args:
        root: where to look.
        suffixes: of images, lower case.
        avoid: a folder that is passed over in silence, such as that of the output.
        takes_coloured: whether images count that `knowhue colorize` has put into folders below it.
    """
    entered = {identity(avoid)} if avoid and avoid.exists() and not avoid.samefile(root) else set()
    silent = set(entered)
    folders, links = [root], []
    coloured: set[Path] = set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            here, entries = identity(folder), _entries(folder)
            if folder != root and not takes_coloured:
                coloured.update(_coloured_in(folder))
        except OSError as error:
            yield Found(folder, f"{UNREADABLE}: {error.strerror}")
            continue
        if here in entered:
            if here not in silent:
                yield Found(folder, "linking to a folder that is here already")
            continue
        entered.add(here)
        inner = []
        for entry, is_folder in entries:
            is_coloured = coloured and entry in coloured
            reason = COLOURED if is_coloured else _why_skipped(entry, is_folder, suffixes)
            if not reason and is_folder:
                (links if entry.is_symlink() else inner).append(entry)
            elif entry.name != LEDGER:
                yield Found(entry, reason)
        folders += reversed(inner)  # a stack: the first by name is taken next


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """What lies in a folder, by name, and whether each is a folder or leads to one: told by the folder, not by each."""
    with os.scandir(folder) as scanned:
        found = sorted(scanned, key=attrgetter("name"))
    return [(folder / each.name, _is_folder(each)) for each in found]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one; not where nobody may look."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _coloured_in(folder: Path) -> Iterator[Path]:
    """What `knowhue colorize` has put into a folder and below it; originals may lie beside it."""
    for ledger in (folder / LEDGER, *(folder / LEDGERS).glob("*.jsonl")):
        if ledger.is_file():
            yield from (folder / each for each in outputs_in(ledger.read_bytes()))


def outputs_in(ledger: bytes) -> Iterator[str]:
    """Paths of the images that the lines of a ledger tell of, below its folder; of what is no such line none."""
    for line in ledger.splitlines():
        with suppress(ValueError, TypeError, KeyError):
            yield str(from_json(line)["output"])


def _why_skipped(entry: Path, is_folder: bool, suffixes: Collection[str]) -> str:
    """Why a file is no image, or a folder is not entered; nothing if it is."""
    reason = why_hidden(entry.name)
    if not reason and is_folder:
        above = entry.absolute().parents if entry.is_symlink() else ()
        return CIRCLE if any(entry.samefile(each) for each in above) else ""
    return reason or ("" if entry.suffix.lower() in suffixes else of_no_format(entry.suffix))


def of_no_format(suffix: str) -> str:
    """Why a file with another suffix than images have is skipped."""
    return f"of no image format ({suffix or 'no suffix'})"


def dangling(link: Path) -> str:
    """What a link whose file is not there is called."""
    return f"a link to nothing ({link.readlink()} is not there)"


def kinds_of(reasons: Iterable[str]) -> Counter[str]:
    """How many there are for each kind of reason, most first; what a reason says of a single file does not count.

    >>> kinds_of(["near-gray: 3", "near-gray: 4", "duplicate of a.jpg", "hidden"])
    Counter({'near-gray': 2, 'duplicate': 1, 'hidden': 1})
    """
    counts = Counter(reason.partition(":")[0].partition(" of ")[0] or reason for reason in reasons)
    return Counter(dict(counts.most_common()))


def counted(reasons: Iterable[str]) -> str:
    """The kinds of reasons in words; beyond the `MOST_KINDS` most frequent, what is left is counted together.

    >>> counted(["hidden", "of no image format (.txt)", "hidden"])
    '2 hidden, 1 of no image format (.txt)'
    """
    kinds = list(kinds_of(reasons).items())
    rest = sum(count for _, count in kinds[MOST_KINDS:])
    named = [f"{count} {kind}" for kind, count in kinds[:MOST_KINDS]]
    return ", ".join([*named, f"{rest} of other kinds"] if rest else named)


def identity(path: Path) -> tuple[int, int]:
    """What all links to a file or folder, and all spellings of its name, have in common."""
    status = path.stat()
    return status.st_dev, status.st_ino


Pixels = NDArray[Any]
"""(H, W, 1 or 3) uint8 or uint16, C-contiguous, upright, sRGB-encoded."""
Metadata = tuple[tuple[str, bytes], ...]
"""EXIF, XMP, IPTC, Photoshop's blocks and GeoTIFF, by their names in libvips."""
Texts = tuple[tuple[str, str], ...]
"""Keys and texts, as of PNG; a text without a key is a `COMMENT`."""
COMMENT = "Comment"
Resolution = tuple[float, float]
"""Pixels a mm, across and down."""


class ComputedBy(NamedTuple):
    """What computed the colours of an image."""

    model: str
    fingerprint: str
    """what tells it from other models of that name"""


class Origin(NamedTuple):
    """Where an image comes from, and what its file said beside the pixels."""

    suffix: str = ""
    """of its format, such as `.jpg`, whatever the file was called"""
    profile: bytes | None = None
    """ICC profile that it is to be written with: its own if that describes RGB, that of sRGB if it had another, None if
    it had none"""
    metadata: Metadata = ()
    """what else the file said. Its orientation is no longer true"""
    texts: Texts = ()
    """comments, and texts with a key"""
    pixels_per_mm: Resolution | None = None
    """horizontal and vertical, of the upright image; None if the file names none"""
    bits: int = 8
    """of a channel in the file"""
    is_lossless: bool = False
    """whether a format that can lose something (WebP) did not"""
    notes: tuple[str, ...] = ()
    """what a user should know of how it was read"""
    computed_by: ComputedBy | None = None
    """what its colours are from, if they are not those of its file"""


class Image(NamedTuple):
    """An image."""

    pixels: Pixels
    """(H, W, 1 or 3); 1 if its file says gray, 3 else, whatever the colours"""
    alpha: NDArray[Any] | None = None
    """(H, W) of the same type, 0 where nothing is seen, or None"""
    origin: Origin = Origin()
    """what else its file said"""

    @classmethod
    def of(cls, pixels: Pixels) -> "Image":
        """An image that comes from no file."""
        return cls(np.ascontiguousarray(pixels))


def require_pixels(pixels: Pixels) -> None:
    """Make sure, before work, that an array is what all code takes for pixels.

    Raises:
        ValueError: it has another shape, type or order in memory.
    """
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
    """The same of an image that somebody has made; of its transparency, too.

    Raises:
        ValueError: pixels or transparency have another shape, type or order in memory.
    """
    require_pixels(image.pixels)
    alpha, wanted = image.alpha, (image.pixels.shape[:2], image.pixels.dtype)
    if alpha is not None and (alpha.shape, alpha.dtype) != wanted:
        raise ValueError(
            f"`alpha` should be (H, W) of the pixels' type, {wanted[0]} {wanted[1]}. Found `alpha.shape = "
            f"{alpha.shape}`, `alpha.dtype = {alpha.dtype}`."
        )


def flattened(image: Image) -> Pixels:
    """Pixels as a network is shown them, in their own depth: over white, so that nothing hidden counts."""
    pixels, alpha = image.pixels, image.alpha
    top = np.iinfo(pixels.dtype).max
    if alpha is None or alpha.min() == top:
        return pixels
    share = alpha[..., None].astype(np.float32) / top
    return (pixels * share + top * (1 - share)).round().astype(pixels.dtype)


def to_rgb8(image: Image) -> NDArray[np.uint8]:
    """An image as networks are trained on it: (H, W, 3) sRGB in 8 bits, over white.

    >>> to_rgb8(Image.of(np.full((1, 1, 1), 65535, np.uint16))).tolist()
    [[[255, 255, 255]]]
    """
    pixels = to_8_bits(flattened(image))
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))  # a view: gray is not copied three times


def to_8_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels (H, W, C) in 8 bits, rounded."""
    # 257 = 65535 / 255; dropping the low byte would darken by half a code
    return pixels if pixels.dtype == np.uint8 else (pixels / 257).round().astype(np.uint8)
