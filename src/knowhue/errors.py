"""The exceptions that users can act on, with one root class, and how messages show names and values."""

import difflib
import errno
import re
import reprlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

MOST_LINES = 8  # largest number of problems that one error lists
_Problem = TypeVar("_Problem")
_HYPHEN_OF_A_NUMBER = re.compile(r"(?<![^\s\[(])-(?=\.?\d)")


class KnowhueError(Exception):
    """Something the user requested cannot be done; the message says why and how to fix it.

    Each argument is a separate problem, which the command line prints as one line.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ConfigError(KnowhueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class ArgumentError(ConfigError, TypeError):
    """An argument of a function has the wrong type."""


class ImageError(KnowhueError):
    """The images cannot be used: none were found, one is unreadable, or a class is missing or too small."""


class WeightsError(KnowhueError):
    """The pretrained weights of an encoder are unavailable or do not fit it."""


class RunError(KnowhueError):
    """A run folder cannot be written, read, or continued with these settings."""


class TableError(KnowhueError):
    """A table of scores cannot be read or analysed; the message names the file and the row."""


class DamagedError(RunError):
    """A file that knowhue wrote was truncated, changed, or replaced by another kind of file."""

    def __init__(
        self, path: object, found: str, remedy: str = "Remove it, and run the command that made it again."
    ) -> None:
        super().__init__(f"`{path}` is damaged: {found}. {remedy}")
        self.path, self.found, self.remedy = path, found, remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # by default, pickle recreates an exception from its message alone, which fails here when a worker raises it
        return type(self), (self.path, self.found, self.remedy)


class ExtraError(KnowhueError):
    """A feature needs an optional package; the message gives the command that installs it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the most similar known name, to append to a message; empty if none is similar.

    >>> did_you_mean("mulit", ["colour", "class", "multi"])
    ' Did you mean `multi`?'
    >>> did_you_mean("ResNet50", ["resnet18", "resnet50"])
    ' Did you mean `resnet50`?'
    >>> did_you_mean("nonsense", ["colour", "class", "multi"])
    ''
    """
    # ignore case: capitals are a common mistake
    spelt = {each.casefold(): each for each in reversed(list(known))}
    # truncated, because difflib takes time that grows with the square of the length
    near = difflib.get_close_matches(name[:80].casefold(), list(reversed(spelt)), 1)
    return f" Did you mean `{spelt[near[0]]}`?" if near else ""


def should_be(name: str, wanted: str, found: object, remedy: str = "") -> str:
    """The message for an argument or a setting with a wrong value.

    >>> should_be("seed", "0 or more", -1)
    '`seed` should be 0 or more. Found `seed = -1`.'
    """
    value = f"{found:.12g}" if isinstance(found, float) else shown(found)
    return f"`{name}` should be {wanted}. Found `{name} = {value}`.{remedy and f' {remedy}'}"


def one_of(name: str, found: str, known: Iterable[str]) -> str:
    """The message for an argument or a setting that is none of the known names.

    >>> one_of("arm", "mulit", ["colour", "class", "multi"])
    '`arm` should be one of colour, class, multi. Found `arm = mulit`. Did you mean `multi`?'
    """
    names = list(known)
    return should_be(name, f"one of {', '.join(names)}", found, did_you_mean(found, names).strip())


def few(names: Sequence[object], most: int = 6) -> str:
    """The first names as text, and how many more there are.

    >>> few("abcd", 2), few("ab", 2)
    ('a, b and 2 more', 'a, b')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def few_lines(problems: Sequence[_Problem], line: Callable[[_Problem], str] = str) -> list[str]:
    """The first problems, one line each, and how many more there are: every row of a table may have one.

    >>> few_lines("abcdefghij")[-2:]
    ['h', 'and 2 more']
    """
    more = [f"and {len(problems) - MOST_LINES:,} more"] * (len(problems) > MOST_LINES)
    return [*map(line, problems[:MOST_LINES]), *more]


def raise_problems(problems: Iterable[str]) -> None:
    """Raise a `ConfigError` that lists all problems, so that users can fix them together."""
    if lines := few_lines(list(problems)):
        raise ConfigError(*lines)


def shown(value: Any, longest: int = 80) -> str:
    """A value as messages show it: as a user would type it, shortened if it is long.

    >>> shown("paper"), shown([1, [2, [3]], "a"]), shown("x" * 1000)[-9:]
    ('paper', "[1, [2, [...]], 'a']", 'xxxxxx...')
    """
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}..."
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _short.repr(value)


def quoted(name: object) -> str:
    """A name or a path, quoted for a command line that a message suggests.

    >>> quoted("f1"), quoted("Test Accuracy")
    ('f1', "'Test Accuracy'")
    """
    return shlex.quote(shown(str(name), 4096))


def plural(count: int | None, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(1496, "image"), plural(None, "epoch")
    ('1 seed', '1,496 images', '– epochs')
    """
    return f"{'–' if count is None else f'{count:,}'} {noun}{'s' * (count != 1)}"


def minus(text: str) -> str:
    """Replace the hyphen of negative numbers in a sentence by a minus sign; data and commands keep the hyphen.

    >>> minus("a b-1: -0.5 [-1 to 1], 2-3")
    'a b-1: −0.5 [−1 to 1], 2-3'
    """
    return _HYPHEN_OF_A_NUMBER.sub("\N{MINUS SIGN}", text)


def is_machine_failure(error: Exception) -> bool:
    """Whether an error has nothing to do with the file that was read: memory ran out, or the GPU failed."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # on a CPU, and with older libraries, torch raises a plain RuntimeError
    words = ("out of memory", "can't allocate memory", "not enough memory", "cuda error", "cublas", "cudnn")
    return isinstance(error, RuntimeError) and any(each in str(error).lower() for each in words)


def first_line(error: BaseException) -> str:
    r"""The first line of another library's error message, or the error's class name if there is none.

    >>> first_line(ValueError("no zip\nat byte 0")), first_line(ValueError())
    ('no zip', 'ValueError')
    """
    return lines_of(error)[0]


def lines_of(error: BaseException, text: str | None = None) -> list[str]:
    """The lines of an error's message, or of `text`; the error's class name if both are empty."""
    return (text or str(error)).strip().splitlines() or [type(error).__name__]


def system_reason(error: OSError) -> str:
    """The reason that the operating system gives, worded to follow a file name and a colon.

    >>> system_reason(FileNotFoundError(2, "No such file or directory"))
    'no such file or directory'
    """
    return (error.strerror or str(error)).lower()


def install_command(extra: str) -> str:
    """The command that installs an extra, to be run in a clone of the project.

    >>> install_command("serve")
    "pip install -e '.[serve]'"
    """
    return f"pip install -e '.[{extra}]'"


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Turn the failed import of a package, which a feature needs, into an `ExtraError` that says how to install it.

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
        """Python refuses to convert integers of more than 4,300 digits to text."""
        return super().repr_int(x, level) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"


_short = _Short()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 80, 80
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = _short.maxfrozenset = 4


def spaced(name: str) -> str:
    """A name from a file, such as a class name, with spaces for readers; files and JSON keep the name.

    >>> spaced("coral_reef")
    'coral reef'
    """
    return name.replace("_", " ")


def percent(share: float) -> str:
    """A probability in whole per cent, never rounded to 0 or 100 %. The server's page uses the same format.

    >>> percent(0.514), percent(0.996), percent(0.004)
    ('51 %', '> 99 %', '< 1 %')
    """
    return "> 99 %" if share >= 0.995 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"
