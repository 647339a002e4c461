"""What lies behind the image in a JPEG file: further images (MPO, gain maps), the film of a motion photo."""

import io
import re

_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""Those that are not within the data of a scan, where zeros are stuffed and restarts counted (ITU-T T.81, B.1.1)."""
_END = 0xD9
_JPEG, _FILM = b"\xff\xd8\xff", b"ftyp"
_NEAR = 1 << 10  # bytes in which the head of a film must begin; Samsung's stands behind a table of its own


def notes_of_jpeg(file: io.FileIO | io.BytesIO) -> tuple[str, ...]:
    """Say what else is in a JPEG file; the file is left at its beginning."""
    file.seek(0)
    data = file.read()
    file.seek(0)
    end = _end_of_image(data)
    behind = data[end : end + _NEAR].lstrip(b"\0\xff") if end else b""
    if behind.startswith(_JPEG[1:]):
        return (
            "the first image in its file; what comes behind it (another view, or a gain map) was left out",
        )
    return ("the film behind it (motion photo) was left out",) if _FILM in behind else ()


def _end_of_image(data: bytes) -> int:
    """Where the first image ends; 0 if it does not."""
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        kind, place = data[found.start() + 1], found.end()
        if kind == _END:
            return place
        place += int.from_bytes(data[place : place + 2], "big")
    return 0
