"""The program `knowhue`: how options are declared, how output is made safe for a terminal, how the process ends."""

import atexit
import codecs
import gc
import inspect
import io
import json
import os
import re
import shlex
import signal
import sys
import threading
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo

from knowhue import __version__
from knowhue.config import Section
from knowhue.engines.executor import MOST_WORKERS, Executor, open_engine
from knowhue.errors import ConfigError, KnowhueError, did_you_mean, few, minus, system_reason
from knowhue.images.image import SUFFIXES
from knowhue.inference.video_formats import VIDEO_SUFFIXES
from knowhue.metric_table import METRICS
from knowhue.settings_text import describe_problem, meaning_of
from knowhue.storage import require_writable_folder

# exit statuses that shells report for a program ended by a signal: 128 + the number of the signal
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

OTHER_NAMES = {
    "colorize": "classify label predict infer run color colour",
    "evaluate": "eval test validate",
    "train": "fit finetune",
    "models": "info describe",
    "serve": "server web ui",
    "check": "verify reproduce",
    "plan": "power init",
    "study": "resume start demo",
    "config": "settings",
}
"""Names that other programs use for our commands."""
OTHER_OPTIONS = {
    "--set training.heads.epochs=3 --set training.finetune.epochs=3": "--epochs --max-epochs",
    "--set training.heads.learning_rate=0.001 --set training.finetune.learning_rate=0.0003": "--lr --learning-rate",
    "--set images.size_px=128": "--size --image-size",
    "--set training.batch_size=64": "--batch-size",
    "--set seed=1": "--seed",
    "--workers": "--jobs -j --num-workers",
    "--out": "--output --output-dir",
    "--overwrite": "--force -f -y",
    "--out with the same folder resumes where it stopped": "--resume --continue",
    "All progress and all warnings are always shown": "--verbose -v --debug",
    "Training and exported models use a GPU if there is one, the built-in model none": "--gpu --cuda --device",
}
"""What to use instead of other programs' options; an option is suggested only by commands that have it."""


def equivalent_of(theirs: str, table: Mapping[str, str]) -> str:
    return next((ours for ours, names in table.items() if theirs in names.split()), "")


class Commands(TyperGroup):
    """The commands; a name that other programs use gets our name as a suggestion."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments begin with; fails as `TyperGroup` does."""
        if not ctx.resilient_parsing and (ours := equivalent_of(args[0], OTHER_NAMES)):
            does = self.commands[ours].get_short_help_str(limit=120)
            ctx.fail(f"No such command {args[0]!r}. Did you mean {ours!r}? {does}")
        if not ctx.resilient_parsing and args[0] in ("help", "version"):
            ctx.fail(f"No such command {args[0]!r}. Did you mean '--{args[0]}'?")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse empty arguments: an empty path would mean the current folder, which is rarely intended."""
        if not ctx.resilient_parsing and (empty := [each for each in args if _EMPTY.fullmatch(each)]):
            raise ConfigError(
                f"{empty[0].strip() or 'An argument'} is empty: knowhue {shlex.join(args)}. Give it a value, or leave "
                "it out. Is a shell variable not set?"
            )
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an option that it does not have gets a suggestion."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            # the error classes belong to typer's bundled click and are private
            option: Any = getattr(error, "param", None)
            cause = error.__cause__
            problem: Any = cause.errors()[0] if option and isinstance(cause, ValidationError) else None
            if problem and problem["type"] != "value_error":
                raise ConfigError(describe_problem(problem | {"loc": option.opts[:1]}, Options)) from None
            if wrong := _NO_CHOICE.fullmatch(str(getattr(error, "message", ""))):
                choices = _QUOTED.findall(wrong["choices"])
                vars(error)["message"] = f"{wrong['message']}{did_you_mean(wrong['found'], choices)}"
            name, inner = getattr(error, "option_name", ""), getattr(error, "ctx", None) or ctx
            options = {each for option in inner.command.params for each in option.opts}
            advice = equivalent_of(str(name), OTHER_OPTIONS)
            if advice and (not advice.startswith("--") or advice.split()[0] in options):
                inner.fail(f"No such option: {name}. Instead: {advice}.")
            if name and not getattr(error, "possibilities", True):  # none is near
                listed = ", ".join(sorted(each for each in options if each.startswith("--")))
                inner.fail(f"No such option: {name}. There are {listed or 'none besides --help'}.")
            raise


class OneInput(TyperCommand):
    """A command that takes one input, and explains what to do if a shell expanded `*.jpg` to several."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; fails as `TyperCommand` does."""
        ctx.allow_extra_args = True
        more = super().parse_args(ctx, args)
        if more and not ctx.resilient_parsing:  # shell completion must not fail
            ctx.fail(f"One input at a time. Found also {few(more, 3)}. Name the folder that holds them.")
        return more


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # `main` prints errors that a user can fix as one line
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Does a model colour better when it knows what it is looking at?\n\n"
    "Train a colorizer and a classifier on one shared encoder, alone and together: do they help each other?",
    epilog="Start with: `knowhue study --preset demo --out runs/demo`",
)

_PLAIN = {
    **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{NON-BREAKING HYPHEN}", "-"),
    **dict.fromkeys("\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}", '"'),
    **dict.fromkeys("\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}", " "),
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{PLUS-MINUS SIGN}": "+/-",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
}
"""ASCII replacements of symbols that we print, for encodings without them, as on Windows for redirected output."""
_NO_CHOICE = re.compile(r"Value error, (?P<message>'(?P<found>.*)' is not one of (?P<choices>.*))", re.DOTALL)
"""typer's message about a value that is not among the choices."""
_EMPTY = re.compile(r"(--[\w-]+=)?\s*")
"""A blank argument, or an option with a blank value."""
_QUOTED = re.compile(r"'([^']+)'")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_OTHER_SUFFIXES = frozenset(
    {".csv", ".html", ".json", ".jsonl", ".md", ".onnx", ".ora", ".parquet", ".pdf", ".safetensors", ".svg"}
    | {".tar", ".txt", ".yaml", ".yml", ".zip"}
)
"""Suffixes of files other than images and videos."""
ERRORS = "knowhue"  # the name under which `_replace_unencodable` is registered with `codecs`
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # needed by some scripts and by emoji
_Value = TypeVar("_Value")
RARELY_NEEDED = "Rarely needed"  # the last panel of `--help`
rare_option = partial(typer.Option, rich_help_panel=RARELY_NEEDED)
Rare = Annotated[_Value, rare_option()]
WorkOption = Annotated[_Value, typer.Option(rich_help_panel="Where the work is done")]
OverwriteOption = Annotated[bool, Field(description="replace files that exist")]


class Options(Section):
    """Arguments and options of a command, one field each; the docstring of a field is its help.

    typer has checked the values. pydantic must not check them again, because it rejects file names that are not UTF-8.
    """

    model_config = ConfigDict(defer_build=True)


class JobOptions(Options):
    """The options of commands that divide their work into jobs."""

    workers: Annotated[WorkOption[int | None], Field(ge=1, le=MOST_WORKERS)] = None
    """jobs that run at once; by default 1 on this machine, or as many as a cluster has room for"""
    engine: WorkOption[str] = "local"
    """where jobs run: `local`, this machine, or on a cluster by `slurm` or `ray` (docs/scale.md)"""
    engine_set: WorkOption[list[str] | None] = None
    """a setting of the engine, such as `slurm.partition=gpu`; may be repeated"""

    def open_engine(self, root: Path) -> Executor:
        return open_engine(self.engine, root, self.workers, self.engine_set or [])


def with_options(command: Callable[[Any], Any]) -> Callable[..., Any]:
    """Turn a function of one `Options` object into a command with an option for each field of that class."""
    (argument,) = inspect.signature(command).parameters.values()
    fields = argument.annotation.model_fields
    # `--help` shows panels in the order in which they first occur
    options = [_parameter(name, field) for name, field in fields.items()]
    options.sort(key=lambda each: each.annotation.__metadata__[0].rich_help_panel == RARELY_NEEDED)
    typed = {each.name: name for each in options if (name := _typed_name(each.annotation.__metadata__[0]))}

    @wraps(command)
    def run(**values: Any) -> Any:
        try:
            return command(argument.annotation.model_construct(**values))
        except KnowhueError as error:
            given = {
                name: typed[name]
                for name in typed.keys() & values
                if values[name] != fields[name].default and name not in map(str, values.values())
            }
            error.args = tuple(with_typed_names(str(each), given) for each in error.args)
            raise

    # typer reads the options of a command from these two attributes
    run.__signature__ = inspect.Signature(options)  # pyright: ignore[reportAttributeAccessIssue]
    run.__annotations__ = {each.name: each.annotation for each in options}
    return run


def with_typed_names(message: str, options: Mapping[str, str]) -> str:
    """Return a message about an argument in Python as one about the option that was typed, by name of the argument.

    A message that does not begin with an argument stays: files, columns and settings can have the same names.

    >>> with_typed_names("`arm` should be one of class, multi. Found `arm = mulit`.", {"arm": "--arm"})
    '`--arm` should be one of class, multi. Found `--arm mulit`.'
    >>> with_typed_names("runs.csv, row 2: `better` should be lower or higher.", {"better": "--better"})
    'runs.csv, row 2: `better` should be lower or higher.'
    """
    begins = re.match(r"`(\w+)`(?! is not a setting)", message)
    if begins is None or begins[1] not in options:
        return message
    for name, option in options.items():
        message = message.replace(f"`{name}`", f"`{option}`").replace(f"`{name} = ", f"`{option} ")
    return message


def _typed_name(parameter: ArgumentInfo | OptionInfo) -> str:
    """Return the name of an option; empty for an argument, which is typed without one."""
    if isinstance(parameter, ArgumentInfo):
        return ""
    # typer keeps the first declared name in `default`
    return parameter.default if isinstance(parameter.default, str) else (parameter.param_decls or ("",))[0]


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return typer's declaration of a field: an argument if its type is annotated as one, else an option."""
    kinds = (each for each in field.metadata if isinstance(each, ArgumentInfo | OptionInfo))
    parameter = copy(next(kinds, typer.Option()))
    text = meaning_of(field)
    parameter.help = f"{text[:1].upper()}{text[1:].removesuffix('.')}."
    # without a declared name, a switch would also get a `--no-` form
    if isinstance(parameter, OptionInfo) and not _typed_name(parameter):
        parameter.param_decls = (f"--{name.strip('_').replace('_', '-')}",)
    for bound in field.metadata:
        parameter.min = getattr(bound, "ge", parameter.min)
        parameter.max = getattr(bound, "le", parameter.max)
    default = inspect.Parameter.empty if field.is_required() else field.default
    kind = Annotated[field.annotation, parameter]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def require_folder(folder: Path, option: str = "--out", named: str = "") -> Path:
    """Make sure, before work begins, that an output folder exists or can be made, and is not named like a file.

    `named` is the folder as it was typed, if a trailing slash marked it as one.
    """
    # `Path.is_dir` would raise an error for a name that is too long
    if not os.path.isdir(folder) and folder.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES | _OTHER_SUFFIXES:
        why = "because it ends in a slash" if named else "because many files are written to it"
        remedy = "Leave the slash out, or name a folder" if named else "Name a folder"
        raise ConfigError(
            f"`{option}` should name a folder, {why}. Found `{option} {named or folder}`, the name of a file. {remedy}."
        )
    return require_writable_folder(folder, option)


def say(*lines: str, err: bool = False) -> None:
    """Print lines, each as exactly one line of a terminal, on standard output or standard error."""
    _print("\n".join(map(printable, lines)), err)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON, escaping characters that control a terminal or that its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    line = ""
    for character in json.dumps(value, ensure_ascii=False):
        is_shown = _escape(character) == character and character.encode(encoding, "ignore")
        line += character if is_shown else json.dumps(character)[1:-1]
    _print(line)


def _print(text: str, err: bool = False) -> None:
    try:
        print(text, file=sys.stderr if err else sys.stdout, flush=True)
    except OSError as error:  # such as a full disk
        error.filename = "standard error" if err else "standard output"
        raise


def printable(text: str) -> str:
    r"""Return a text with its control, formatting and undecodable characters escaped.

    >>> print(printable("a\x1b[31m\nb\u202ec\udcff"))
    a\x1b[31m\nb\u202ec\xff
    """
    return text if text.isprintable() else "".join(map(_escape, text))


def command_line() -> str:
    """Return the running command as a user would type it."""
    name = os.path.basename(sys.argv[0])
    began = ["python", "-m", "knowhue"] if name == "__main__.py" else [name]
    return shlex.join([*began, *sys.argv[1:]])


def replace_unencodable_output() -> None:
    """Make standard output and standard error replace characters that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def score_line(name: str, value: float | None, interval: tuple[float, float] | None = None) -> str:
    """Return a line with the title of a metric, its value and unit, the interval if any, and which direction is better.

    >>> score_line("ab_l1", 11.98)
    'Mean absolute error of a*b*: 11.980 CIELAB units (lower is better)'
    >>> score_line("ciede2000", 18.884)
    'CIEDE2000: 18.884 units (lower is better)'
    >>> score_line("accuracy", 0.9, (0.85, 0.935))
    'Accuracy: 90.0 % [85.0 % to 93.5 %] (higher is better)'
    >>> score_line("ssim_rgb", -0.25, (-0.5, 0.0))
    'SSIM of RGB (L* is given): −0.250 (−1 to 1) [−0.500 to 0.000] (higher is better)'
    """
    metric = METRICS[name]
    is_share = metric.unit == "share"
    texts = [
        "not a number" if each is None else f"{100 * each:.1f} %" if is_share else f"{each:.3f}"
        for each in (value, *(interval or ()))
    ]
    ends = f" [{texts[1]} to {texts[2]}]" if interval else ""
    unit = "" if is_share or value is None else f" {unit_in_words(name)}"
    better = f" ({metric.better} is better)" if metric.better in ("lower", "higher") else ""
    return minus(f"{metric.title}: {texts[0]}{unit}{ends}{better}")


def unit_in_words(name: str) -> str:
    """Return the unit of a metric as it follows a number, in brackets unless it consists of words."""
    metric = METRICS[name]
    unit = metric.unit.removeprefix(f"{metric.title} ")  # the unit of CIEDE2000 repeats its title
    return unit if unit.replace(" ", "").isalnum() else f"({unit})"


def _escape(character: str) -> str:
    if unicodedata.category(character) not in _INVISIBLE or character in _JOINERS:
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(
        _PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in missing
    ), error.end


codecs.register_error(ERRORS, _replace_unencodable)


def _print_version(is_given: bool) -> None:
    if is_given:
        say(f"knowhue {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def resend_interruption(lost: "sys.UnraisableHookArgs") -> None:
    """Send an interruption again that Python dropped because it was raised while an object was being finalized."""
    if lost.exc_type is KeyboardInterrupt:
        # later and from a thread, because here it would be dropped again
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def main() -> NoReturn:
    """Run the command line; an error that a user can fix prints one line and exits with 2."""
    import knowhue.apps.cli  # noqa: F401  registers the commands

    replace_unencodable_output()
    # the garbage collection at exit would take a second once torch is imported
    atexit.register(gc.freeze)
    terminations = []

    def end_as_interrupted(*_: object) -> NoReturn:
        terminations.append(True)
        raise KeyboardInterrupt

    # at SIGTERM, clean up and report as at Ctrl-C; torch.distributed.run ends its processes in its own way
    if "LOCAL_RANK" not in os.environ:
        signal.signal(signal.SIGTERM, end_as_interrupted)
    sys.unraisablehook = resend_interruption
    # Pillow's warnings about damaged metadata name no file; what matters is reported with the file's name
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")

    try:
        app(standalone_mode=True)
    except KnowhueError as error:
        say(f"knowhue: {error.args[0]}", *map(str, error.args[1:]), err=True)
        sys.exit(2)
    except SystemExit as end:  # typer turns Ctrl-C into this one
        if end.code != INTERRUPTED:
            raise
        say("", "knowhue: stopped. The same command resumes it.", err=True)
        sys.exit(TERMINATED if terminations else INTERRUPTED)
    except OSError as error:
        # errors of memory and connections have no file name
        where = "" if error.filename is None else f"{error.filename}: "
        say(f"knowhue: {where}{system_reason(error)}", err=True)
        sys.exit(2)
    sys.exit(0)
