"""Which files of a folder are images: one rule for what is trained on and for what is coloured."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SUFFIXES_OF: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "HEIC": (".heic", ".heif"),
    "BMP": (".bmp", ".dib"),
    "JPEG 2000": (".jp2", ".j2k"),
    "PNM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Suffixes, lower case, of the formats that can be read; the first is the usual one."""

SUFFIXES = frozenset(suffix for suffixes in SUFFIXES_OF.values() for suffix in suffixes)

_SYSTEM_NAMES = frozenset({
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",  # zip archives of macOS, Windows
    "@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "@__thumb",  # NAS
    "$recycle.bin", "recycler", "system volume information", "lost+found", "network trash folder", "temporary items",
})  # fmt: skip


UNREADABLE = "unreadable folder"
CIRCLE = "a link to a folder that it lies in"
AGAIN = "a link to a folder that is here already"
NO_IMAGE = "no image by its name"


class Found(NamedTuple):
    """A file below a folder, or a folder that was not entered.

    Attributes:
        path: below the folder that was walked.
        skipped: why it is left out; nothing for an image.
    """

    path: Path
    skipped: str = ""


def why_hidden(name: str) -> str:
    """Why a file or folder of this name is left alone, or nothing.

    Names that begin with a dot (among them `._NAME`, macOS' resource forks), and what systems put beside images.

    >>> why_hidden("._reef.jpg"), why_hidden("@eaDir"), why_hidden("@home")
    ('hidden', 'of the system', '')
    """
    if name.startswith("."):
        return "hidden"
    return "of the system" if name.casefold() in _SYSTEM_NAMES else ""


def walk(root: Path, suffixes: Collection[str] = SUFFIXES, avoid: Path | None = None) -> Iterator[Found]:
    """Everything below a folder, by name; links to folders last.

    Links to files and folders are followed, each real folder is entered once, under its own name if it has one here.
    A link that leads nowhere, a device and a pipe count as files: whoever reads them will say so.

    Args:
        root: where to look.
        suffixes: of images, lower case.
        avoid: a folder that is passed over in silence, such as that of the output.
    """
    entered = {_identity(avoid)} if avoid and avoid.exists() and not avoid.samefile(root) else set()
    silent = set(entered)
    folders, links = [root], []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            identity, entries = _identity(folder), sorted(folder.iterdir())
        except OSError as error:
            yield Found(folder, f"{UNREADABLE}: {error.strerror}")
            continue
        if identity in entered:
            if identity not in silent:
                yield Found(folder, AGAIN)
            continue
        entered.add(identity)
        inner = []
        for entry in entries:
            if reason := why_hidden(entry.name):
                yield Found(entry, reason)
            elif entry.is_dir() and entry.is_symlink():
                if any(entry.samefile(above) for above in entry.absolute().parents):
                    yield Found(entry, CIRCLE)
                else:
                    links.append(entry)
            elif entry.is_dir():
                inner.append(entry)
            elif entry.suffix.lower() not in suffixes:
                yield Found(entry, f"{NO_IMAGE} ({entry.suffix or 'no suffix'})")
            else:
                yield Found(entry)
        folders += reversed(inner)  # a stack: the first by name is taken next


def dangling(link: Path) -> str:
    """What a link whose file is not there is called."""
    return f"a link to nothing ({link.readlink()} is not there)"


def others_sentence(found: Iterable[Found]) -> str:
    """How many entries are left out, by why; nothing if none.

    >>> others_sentence([Found(Path(".a"), "hidden"), Found(Path("b.txt"), "no image by its name (.txt)")])
    '2 files left out (1 hidden, 1 no images)'
    """
    words = {NO_IMAGE: "no images", CIRCLE: "links to folders above", AGAIN: "links to folders here already"}
    reasons = (each.skipped.split(" (")[0] for each in found if each.skipped)
    counts = Counter(words.get(reason, reason) for reason in reasons)
    if not counts:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    total = counts.total()
    return f"{total} file{'s' * (total != 1)} left out ({kinds})"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
