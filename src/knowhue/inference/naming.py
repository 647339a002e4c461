"""What a coloured file is called where its user does not say, and which files were called so."""

from collections.abc import Collection
from pathlib import Path

from knowhue.errors import ConfigError
from knowhue.images.writing import OUTPUT_SUFFIXES
from knowhue.inference.video_formats import CODECS, VIDEO_SUFFIXES

MARK = "-colour"


def writable_suffix(suffix: str) -> str:
    """A suffix, or in the place of one that can only be read `.png`, or `.mkv` for a video.

    >>> writable_suffix(".JPG"), writable_suffix(".bmp"), writable_suffix(""), writable_suffix(".avi")
    ('.JPG', '.png', '.png', '.mkv')
    """
    if suffix.lower() in VIDEO_SUFFIXES:  # .mkv takes nearly all kinds of sound and subtitles
        return suffix if suffix.lower() in CODECS else ".mkv"
    return suffix if suffix.lower() in OUTPUT_SUFFIXES else ".png"


def default_output(source: Path) -> Path:
    """Beside an image or a video, with a mark and a suffix that can be written.

    >>> default_output(Path("album/photo.heic")).as_posix()
    'album/photo-colour.png'
    """
    return source.with_name(f"{source.stem}{MARK}{writable_suffix(source.suffix)}")


def default_folder(source: Path) -> Path:
    """Beside a folder, with a mark.

    Raises:
        ConfigError: it lies in no other folder.
    """
    folder = source.resolve()
    if not folder.name:
        raise ConfigError(f"{source} has no name to which {MARK} could be added; name a folder with --out")
    return folder.with_name(f"{folder.name}{MARK}")


def made_of(files: Collection[Path]) -> dict[Path, Path]:
    """The files that `default_output` names after another one of them, each with that one.

    >>> made_of([Path("sky.bmp"), Path("sky-colour.png"), Path("sea-colour.png")])[Path("sky-colour.png")].name
    'sky.bmp'
    """
    named = {default_output(file): file for file in files}
    return {file: named[file] for file in files if file in named}
