"""What a command may write: never an input, never two things into one file, nothing that exists unless it is asked.

Every command that writes a user's files asks here, before work. What a study or a run keeps in its own folder is
another matter: `runs`.
"""

import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from knowhue.errors import ConfigError, RunError

RUN_FILES = ("status.json", "study.json", "comparison.json")
"""Files that mark a folder which knowhue keeps itself."""


def require_outputs(
    outputs: Mapping[str, Path], inputs: Iterable[Path] = (), *, overwrite: bool = False
) -> None:
    """Make sure, before work, that files can be written where a user wants them, and that nothing is lost by it.

    Args:
        outputs: what is to be written, by the option that names it, such as `--out`.
        inputs: files that are never replaced, whatever the user asks and by whatever name or link they are reached.
        overwrite: whether other files may be replaced.

    Raises:
        ConfigError: an output is an input or another output, or exists.
        RunError: it cannot be written.
    """
    kept = list(inputs)
    written: dict[str, Path] = {}
    for option, path in outputs.items():
        require_no_input(path, kept, option)
        for other, earlier in written.items():
            if _place(path) == _place(earlier) or _is_same(path, earlier):
                raise ConfigError(f"{path} would be written twice, by {other} and {option}; name two files")
        written[option] = path
        _require_free(path, option, overwrite)
        _require_room(path, option)


def require_no_input(path: Path, inputs: Iterable[Path], option: str = "--out") -> None:
    """Make sure that a file to be written is not one that is read.

    Raises:
        ConfigError: it is, perhaps by another spelling or a link.
    """
    for each in inputs:
        if _is_same(path, each):
            raise ConfigError(f"{path} is an input, which is never replaced; name another file with {option}")


def require_no_run(folder: Path, option: str = "--out") -> None:
    """Make sure that files of a run are not replaced, or added to.

    Raises:
        ConfigError: the folder is a run's or a study's own.
    """
    found = [name for name in RUN_FILES if (folder / name).exists()]
    if found:
        raise ConfigError(
            f"{folder} holds a run or a study ({found[0]}), whose files are never replaced; name another folder with "
            f"{option}"
        )


def _is_same(path: Path, other: Path) -> bool:
    """Whether two names lead to one file that exists."""
    try:
        return path.samefile(other)
    except OSError:  # one does not exist, or cannot be reached
        return False


def _place(path: Path) -> tuple[str, str]:
    """What two spellings of one file have in common, on file systems that ignore case and forms of accents, too."""
    name = unicodedata.normalize("NFC", path.name).casefold()
    return os.path.realpath(path.parent), name


def _require_free(path: Path, option: str, overwrite: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unwritable(path, error, option) from None
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file with {option}")
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise ConfigError(f"{path} is a device, a pipe or a socket; name a file with {option}")
    if not overwrite:
        raise ConfigError(f"{path} already exists; name another file with {option}, or pass --overwrite")


def _require_room(path: Path, option: str) -> None:
    """Try the nearest folder that exists: those below it are made when the file is written."""
    folder = Path(os.path.realpath(path.parent))
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(path, error, option) from None


def _unwritable(path: Path, error: OSError, option: str) -> RunError:
    return RunError(
        f"{path} cannot be written: {(error.strerror or str(error)).lower()}; name another with {option}"
    )
