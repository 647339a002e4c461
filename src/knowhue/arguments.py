"""Type checks of the arguments of public functions, because notebooks have no type checker."""

import functools
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin

from knowhue.errors import ArgumentError, did_you_mean, shown

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "True or False", str: "text", bytes: "the bytes of a file",
    type(None): "None", Callable: "a function", Mapping: "a dict", Sequence: "a list",
}  # fmt: skip
_MAKERS = {
    "AlbumColour": "`knowhue.inference.reference.colour_of_album`",
    "ColorizeOptions": "`ColorizeOptions(saturation=1.2)`",
    "Config": "`load_config()`",
    "Executor": "`knowhue.engines.executor.open_engine`",
    "Hint": "`knowhue.inference.hints.parse_hint('30%,40%=orange', width, height)`",
    "Image": "`read_image`, or of pixels by `knowhue.images.image.Image.of(pixels)`",
    "Images": "`load_config().images`",
    "Plan": "`make_plan(load_config())`",
    "Reference": "`Colorizer.reference`",
    "Strokes": "`knowhue.inference.hints.strokes_of`",
}


def checked_arguments(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Decorator that checks the arguments of a public function against its annotations; raises an `ArgumentError`.

    >>> @checked_arguments
    ... def paint(saturation: float = 1.0) -> None: ...
    >>> paint("2")
    Traceback (most recent call last):
    knowhue.errors.ArgumentError: `saturation` should be a number. Found `saturation = '2'`, of the type `str`.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checking(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        kinds = _field_types(function)
        if unknown := [name for name in kwargs if name not in signature.parameters]:
            raise ArgumentError(_unknown(function.__name__, unknown[0], [*signature.parameters], kinds))
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:  # too many or too few arguments: Python's own message names the function
            return function(*args, **kwargs)
        for name, value in arguments.items():
            for misfit in _mismatches(name, value, kinds[name]) if name in kinds else ():
                raise ArgumentError(_message(*misfit))
        return function(*args, **kwargs)

    return checking


@functools.cache
def _field_types(annotated: Any) -> dict[str, list[Any]]:
    return {name: _members(each) for name, each in typing.get_type_hints(annotated).items()}


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows: the members of a union."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return list(get_args(annotation)) if is_union else [annotation]


def _mismatches(name: str, value: Any, kinds: list[Any]) -> Iterator[tuple[str, Any, list[Any]]]:
    """Name, value and allowed types of each mismatch, in the value itself or in its elements and fields."""
    kind = next((each for each in kinds if _has_type(value, each)), None)
    if kind is None or (kind is str and not value and Path in kinds):
        yield name, value, kinds
    elif get_origin(kind) is Sequence:
        for place, each in enumerate(value):
            yield from _mismatches(f"{name}[{place}]", each, _members(*get_args(kind)))
    elif hasattr(kind, "_fields"):
        for field, inner in _field_types(kind).items():
            yield from _mismatches(f"{name}.{field}", getattr(value, field), inner)


def _has_type(value: Any, kind: Any) -> bool:
    kind = get_origin(kind) or kind
    if kind is Any:
        return True
    if kind in (int, float):  # numpy's scalars are numbers, too
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is Sequence:  # also a dict's keys and arrays, but not a single text, the most common mistake
        is_several = hasattr(value, "__len__") and hasattr(value, "__iter__")
        is_one = isinstance(value, str | bytes | Mapping) or getattr(value, "shape", None) == ()
        return is_several and not is_one
    if getattr(kind, "_is_protocol", False) and kind is not Callable:
        return all(hasattr(value, name) for name in vars(kind) | kind.__annotations__ if name[0] != "_")
    return isinstance(value, kind)


def _unknown(function: str, name: str, known: list[str], kinds: Mapping[str, list[Any]]) -> str:
    arguments = [each for each in known if each not in ("self", "cls")]
    text = f"`{function}` should be given {', '.join(arguments)}. Found `{name}`."
    for argument in arguments:
        for kind in kinds.get(argument, ()):
            if name in getattr(kind, "_fields", ()):
                return f"{text} Give it as `{argument} = {kind.__name__}({name}=...)`."
    return f"{text}{did_you_mean(name, arguments)}"


def _message(name: str, value: Any, kinds: list[Any]) -> str:
    if isinstance(value, str) and not value and Path in kinds:  # as a path, it would mean the current folder
        return f"`{name}` should name a file or a folder. Found `{name} = ''`."
    short = value[:80] if isinstance(value, str) else value
    # in Python's notation: `shown` writes settings, where None is `null`
    found = " ".join((repr(short) if isinstance(short, str | bool | None) else shown(short)).split())
    text = (
        f"`{name}` should be {' or '.join(map(_type_name, kinds))}. "
        f"Found `{name} = {found}`, of the type `{type(value).__name__}`."
    )
    made = [each for each in kinds if getattr(each, "__name__", "") in _MAKERS]
    remedies = [f" Make {_type_name(each)} by {_MAKERS[each.__name__]}." for each in made]
    fields = getattr(value, "_fields", ())  # such as `image` of a `Colorized`
    if fitting := [each for each in fields if any(_has_type(getattr(value, each), kind) for kind in made)]:
        return f"{text} Pass its `{fitting[0]}`."
    if type(value).__name__ == "ndarray" and bytes in kinds and not remedies:
        remedies = [f" Make an image by {_MAKERS['Image']}."]
    if isinstance(value, str) and Sequence[str] in kinds:
        remedies = [f" Put it into a list: `{name} = [{found}]`."]
    return text + "".join(remedies)


def _type_name(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is Sequence:
        return f"a list, each {' or '.join(map(_type_name, _members(*get_args(kind))))}"
    return _TYPE_NAMES.get(origin, f"a{'n' * (origin.__name__[0] in 'AEIOU')} `{origin.__name__}`")
