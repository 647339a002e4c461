"""How much memory an image will take while it is coloured, from its header alone."""

from pathlib import Path

from knowhue.inference.files.formats import FORMATS, HEAD_BYTES, recognise
from knowhue.inference.files.tiff_pages import choose_page
from knowhue.inference.files.vips import VipsError, load

_COPIES = 3
"""Of its pixels, at the worst moment: what was read, what is painted, what is encoded."""
_PACKED = 32
"""Bytes of pixels in a byte of file, where libvips does not read the header; few are packed more tightly."""
_UNPACKED = frozenset({"BMP", "PNM"})


def weigh_image(path: Path) -> int:
    """Bytes that reading, painting and encoding an image hold at once, about; 0 if it is no image.

    Never fails: what is wrong with an image is told by reading it.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return 0
        with path.open("rb", buffering=0) as file:
            kind = recognise(file.read(HEAD_BYTES))
            if kind is None:
                return 0
            if not FORMATS[kind].loader:
                return _COPIES * path.stat().st_size * (1 if kind in _UNPACKED else _PACKED)
            file.seek(0)
            options = choose_page(file).options if kind == "TIFF" else {}
            image = load(FORMATS[kind].loader, file, **options)
            depth_bytes = 1 if image.format == "uchar" else 2
            return _COPIES * image.width * image.height * max(image.bands, 3) * depth_bytes
    except (OSError, VipsError):
        return 0
