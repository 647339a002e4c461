"""How much memory a picture will take while it is coloured, from its header alone."""

from pathlib import Path

from knowhue.inference.vips import library

_COPIES = 3
"""Of its pixels, at the worst moment: what was read, what is painted, what is encoded."""
_PACKED = 32
"""Bytes of pixels in a byte of file, where libvips cannot read the header; little is packed more tightly."""
_UNPACKED = frozenset({".bmp"})


def weigh_picture(path: Path) -> int:
    """Bytes that reading, painting and encoding a picture hold at once, about; 0 if it is no picture.

    Never fails: what is wrong with a picture is told by reading it.
    """
    vips = library()
    try:
        image = vips.Image.new_from_file(str(path), access="sequential")
    except (vips.Error, ValueError):  # ValueError: a name that libvips cannot be given
        return _by_file(path)
    wide = 1 if image.format == "uchar" else 2
    return _COPIES * image.width * image.height * max(image.bands, 3) * wide


def _by_file(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError:
        return 0
    return _COPIES * size * (1 if path.suffix.lower() in _UNPACKED else _PACKED)
