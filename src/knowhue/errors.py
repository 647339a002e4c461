"""The one root of every error that a user can mend, and what its message says of names and values."""

import difflib
import errno
import re
import reprlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

MOST_LINES = 8
"""Of problems that are told at once."""
_Problem = TypeVar("_Problem")
_HYPHEN_OF_A_NUMBER = re.compile(r"(?<![^\s\[(])-(?=\.?\d)")


class KnowhueError(Exception):
    """Something the user asked for cannot be done; the message says why and how to mend it.

    Each argument is a problem of its own, which the command line prints as one line.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ConfigError(KnowhueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class ArgumentError(ConfigError, TypeError):
    """An argument of a function is of another type than it should be."""


class ImageError(KnowhueError):
    """The images cannot be used: none found, unreadable, one class, too few of one."""


class WeightsError(KnowhueError):
    """The pretrained weights of an encoder are unavailable or do not fit it."""


class RunError(KnowhueError):
    """A run folder cannot be written, read, or continued with these settings."""


class TableError(KnowhueError):
    """A table of scores cannot be read or judged; the message names file and row."""


class DamagedError(RunError):
    """A file that knowhue wrote is cut, changed, or of another kind."""

    def __init__(self, path: object, found: str) -> None:
        super().__init__(f"`{path}` is damaged: {found}. Remove it, and run the command that made it again.")
        self._made_of = path, found

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle makes exceptions anew of their message: this one would fail to come back from a worker
        return type(self), self._made_of


class ExtraError(KnowhueError):
    """A feature needs a package that is an extra; the message gives the command that installs it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest of the known names, to be put behind a message; nothing if none is near.

    >>> did_you_mean("mulit", ["colour", "class", "multi"])
    ' Did you mean `multi`?'
    >>> did_you_mean("ResNet50", ["resnet18", "resnet50"])
    ' Did you mean `resnet50`?'
    >>> did_you_mean("nonsense", ["colour", "class", "multi"])
    ''
    """
    # case is no difference to whoever mistakes one for the other
    spelt = {each.casefold(): each for each in reversed(list(known))}
    # cut, for difflib's time grows with the square of the length
    near = difflib.get_close_matches(name[:80].casefold(), list(reversed(spelt)), 1)
    return f" Did you mean `{spelt[near[0]]}`?" if near else ""


def one_of(name: str, found: str, known: Iterable[str]) -> str:
    """What is wrong with an argument or a setting that should be one of the known names.

    >>> one_of("arm", "mulit", ["colour", "class", "multi"])
    '`arm` should be one of colour, class, multi. Found `arm = mulit`. Did you mean `multi`?'
    """
    names = list(known)
    return f"`{name}` should be one of {', '.join(names)}. Found `{name} = {shown(found)}`.{did_you_mean(found, names)}"


def few(names: Sequence[object], most: int = 6) -> str:
    """The first of some names, and how many there are more.

    >>> few("abcd", 2), few("ab", 2)
    ('a, b and 2 more', 'a, b')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def few_lines(problems: Sequence[_Problem], line: Callable[[_Problem], str] = str) -> list[str]:
    """The first of some problems, a line each, and how many there are more: of a table, every row may have one.

    >>> few_lines("abcdefghij")[-2:]
    ['h', 'and 2 more']
    """
    more = [f"and {len(problems) - MOST_LINES:,} more"] * (len(problems) > MOST_LINES)
    return [*map(line, problems[:MOST_LINES]), *more]


def refuse_all(problems: Iterable[str]) -> None:
    """Raise what is wrong at once: who has mended one thing should not meet the next then."""
    if lines := few_lines(list(problems)):
        raise ConfigError(*lines)


def shown(value: Any, longest: int = 80) -> str:
    """A value as a message shows it: as a user would type it, and short however large it is.

    >>> shown("paper"), shown([1, [2, [3]], "a"]), shown("x" * 1000)[-9:]
    ('paper', "[1, [2, [...]], 'a']", 'xxxxxx...')
    """
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}..."
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _short.repr(value)


def as_word(name: object) -> str:
    """A name or a path as a command must have it that a message gives.

    >>> as_word("f1"), as_word("Test Accuracy")
    ('f1', "'Test Accuracy'")
    """
    return shlex.quote(shown(str(name), 4096))


def plural(count: int | None, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(3, "arm"), plural(None, "epoch")
    ('1 seed', '3 arms', '– epochs')
    """
    return f"{'–' if count is None else count} {noun}{'s' * (count != 1)}"


def minus(text: str) -> str:
    """Give the numbers of a sentence a minus sign; data and what is typed keep the hyphen.

    >>> minus("a b-1: -0.5 [-1 to 1], 2-3")
    'a b-1: −0.5 [−1 to 1], 2-3'
    """
    return _HYPHEN_OF_A_NUMBER.sub("\N{MINUS SIGN}", text)


def of_the_machine(error: Exception) -> bool:
    """Whether an error says nothing of the file that was read: memory ran out, or the GPU failed."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch raises a plain RuntimeError for both on a CPU and in older libraries
    words = ("out of memory", "can't allocate memory", "not enough memory", "cuda error", "cublas", "cudnn")
    return isinstance(error, RuntimeError) and any(each in str(error).lower() for each in words)


def first_line(error: BaseException) -> str:
    r"""What another's error says, in a line.

    >>> first_line(ValueError("no zip\nat byte 0")), first_line(ValueError())
    ('no zip', 'ValueError')
    """
    return lines_of(error)[0]


def lines_of(error: BaseException, text: str | None = None) -> list[str]:
    """What another's error says, or `text`, line by line; its name where that is nothing."""
    return (text or str(error)).strip().splitlines() or [type(error).__name__]


def system_reason(error: OSError) -> str:
    """Why the system did not do something, as it stands behind a file's name.

    >>> system_reason(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    return (error.strerror or str(error)).lower()


def install_command(extra: str) -> str:
    """The command that adds an extra to a clone of the project, typed in its folder.

    >>> install_command("serve")
    "pip install -e '.[serve]'"
    """
    return f"pip install -e '.[{extra}]'"


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Say of an import that fails for want of another's package how it is mended.

    Args:
        what: it is for.
        extra: of which the package is.

    Raises:
        ExtraError: the package is not installed, or of another version.

    >>> with needing("`--engine ray`", "ray"):
    ...     raise ModuleNotFoundError(name="ray")
    Traceback (most recent call last):
    knowhue.errors.ExtraError: `--engine ray` needs `ray`, which is not installed: pip install -e '.[ray]'
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "knowhue").partition(".")[0]
        if package == "knowhue":
            raise
        found = "not installed" if isinstance(error, ModuleNotFoundError) else f"of another version ({error})"
        raise ExtraError(f"{what} needs `{package}`, which is {found}: {install_command(extra)}") from None


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write whole numbers of more than 4,300 digits."""
        return super().repr_int(x, level) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"


_short = _Short()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 80, 80
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = _short.maxfrozenset = 4


def spaced(name: str) -> str:
    """A name from a file, as of a class, as words for people; files and JSON keep the name.

    >>> spaced("coral_reef")
    'coral reef'
    """
    return name.replace("_", " ")


def percent(share: float) -> str:
    """A probability in whole per cent, for people; none is rounded to certainty. The server's page says it so, too.

    >>> percent(0.514), percent(0.996), percent(0.004)
    ('51 %', '> 99 %', '< 1 %')
    """
    return "> 99 %" if share >= 0.995 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
