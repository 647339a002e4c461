"""What the API takes and gives: uploads, options, answers, and how its OpenAPI describes them."""

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.request import parse_http_list

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from knowhue.config import Fraction, Section, Task
from knowhue.errors import ConfigError
from knowhue.inference.networks import Description, Interval
from knowhue.serving.limits import Refusal
from knowhue.settings_text import describe_problem

MOST_HINTS = 64
FIELD = "image"
MOST_FIELDS = 80
LONGEST_FIELD = 4096
_WAYS = "`multipart/form-data` with a file `image`, or the image's bytes with its type, such as `image/jpeg`"
JSON = "application/json"
_PART = re.compile(r'(?:[^;"]|"(?:\\.|[^"\\])*")+')
_QUALITY = re.compile(r"q\s*=\s*(0(?:\.\d*)?|1(?:\.0*)?)", re.IGNORECASE | re.ASCII)
T = TypeVar("T", bound=BaseModel)
Format = Literal["jpg", "png", "webp", "tif", "avif"]
MEDIA_TYPES: dict[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
}


class ClassOptions(Section):
    """How to classify."""

    model: str | None = Field(
        default=None, max_length=200, description="one of `/v1/models`; the first if none is named"
    )
    unknown_below: Fraction | None = Field(
        default=None,
        description="probability below which the class is `unknown`; the model's own limit if none",
    )


class ColourOptions(ClassOptions):
    """How to colour."""

    saturation: Annotated[float, Field(ge=0, le=4)] = Field(
        default=1.0, description="what the chroma is multiplied by; 0 is gray"
    )
    hints: tuple[Annotated[str, Field(max_length=100, json_schema_extra={"format": "hint"})], ...] = Field(
        default=(),
        max_length=MOST_HINTS,
        description="points with a colour, `X,Y=COLOUR`, such as `30%,40%=orange` or `120,80=#c83232`",
    )
    format: Format | None = Field(default=None, description="of the answer; that of the image if none")
    max_px: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="longest side of the answer, for a preview; colours and class stay those of the whole image",
    )
    uncertainty: bool = Field(
        default=False, description="also say where the colours are unsure; six more looks at the image"
    )


class ErrorAnswer(BaseModel):
    """What went wrong, and how to mend it."""

    error: str


class StatusAnswer(BaseModel):
    """How the server is."""

    status: str


class JudgementAnswer(BaseModel):
    """What is said of an image."""

    model: str
    label: str | None = Field(
        description="most probable class; `unknown` if none is probable enough, or novelty is above 1"
    )
    probability: float | None = Field(description="0 to 1, of the most probable class")
    probabilities: dict[str, float] = Field(description="of all classes, most probable first")
    novelty: float = Field(description="above 1 the image is unlike those that the model was trained on")
    chroma: float | None = Field(description="mean C*, CIELAB units")
    colourfulness: float | None = Field(description="Hasler and Suesstrunk 2003")
    reduced: float | None = Field(description="share of pixels whose chroma was reduced to fit sRGB")
    warnings: list[str]


class UncertaintyAnswer(BaseModel):
    """Where the colours are unsure."""

    mean: float = Field(description="CIELAB units")
    map: str = Field(description="gray PNG in base64, 10 codes a CIELAB unit")


class FullAnswer(BaseModel):
    """What comes without `max_px` and `format`."""

    width: int = Field(description="pixels")
    height: int = Field(description="pixels")
    media_type: str


class ColourAnswer(JudgementAnswer):
    """A coloured image and what is said of it."""

    image: str = Field(description="the file in base64")
    media_type: str
    uncertainty: UncertaintyAnswer | None = None
    full: FullAnswer | None = Field(default=None, description="only with `max_px`")


class TrainedOn(BaseModel):
    """The images that a model has learned from."""

    source: str | None = Field(description="`drawn` are scenes of this project; others are photos")
    images: int | None


class ModelAnswer(BaseModel):
    """A model that the server runs."""

    name: str
    tasks: tuple[Task, ...]
    classes: tuple[str, ...]
    size_px: int
    metrics: dict[str, Interval]
    unknown_below: float
    licence: str
    trained_on: TrainedOn

    @classmethod
    def of(cls, name: str, found: Description) -> "ModelAnswer":
        """What is told of a model."""
        return cls(
            name=name,
            tasks=found.tasks,
            classes=found.classes if "class" in found.tasks else (),
            size_px=found.size_px,
            metrics={name: _rounded(score) for name, score in found.metrics.items()},
            unknown_below=_digits(found.unknown_below),
            licence=found.licence,
            trained_on=TrainedOn(source=found.images.get("source"), images=found.images.get("train")),
        )


def gather(kind: type[T], *sources: Sequence[tuple[str, str]]) -> T:
    """Options from the pairs of a query and of a form; what the form says takes the place of the query's.

    Each must be right by itself: a wrong value is refused even where another takes its place.

    Raises:
        ConfigError: one is unknown, out of range, or given twice.

    >>> gather(ColourOptions, [("hints", "1,2=red"), ("saturation", "0.5"), ("hints", "3,4=blue")]).hints
    ('1,2=red', '3,4=blue')
    """
    values: dict[str, Any] = {}
    try:
        for pairs in sources:
            given = _collected(pairs)
            kind.model_validate(given)
            values |= given
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_sentence(kind, error)) from None


def fields(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """The same options as OpenAPI tells them; an option that may be left out is never null, for text knows none."""
    described = kind.model_json_schema()["properties"]
    return {name: _without_null(schema) for name, schema in described.items()}


def parameters(kind: type[BaseModel]) -> list[dict[str, Any]]:
    """The same options in a query."""
    return [
        {"name": name, "in": "query", "description": schema.pop("description", ""), "schema": schema}
        for name, schema in fields(kind).items()
    ]


def _collected(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name == "hints":
            values.setdefault(name, []).append(value)
        elif name in values:
            raise ConfigError(f"`{_short(name)}` should be given once. Found it twice.")
        else:
            values[name] = value
    return values


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if schema.get("default", 0) is None:
        del schema["default"]
    return schema | (kinds[0] if kinds else {})


def _sentence(kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        name = _short(str(first["loc"][0]))
        return f"An option should be one of {', '.join(kind.model_fields)}. Found `{name}`."
    return describe_problem(first, kind)


def _rounded(score: Interval) -> Interval:
    return Interval(value=_digits(score.value), low=_digits(score.low), high=_digits(score.high))


def _digits(value: float) -> float:
    """A number with as many digits as are told of a score."""
    return float(f"{value:.4g}")


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


class Upload(NamedTuple):
    """What came.

    Attributes:
        data: of the image's file.
        query: names and values of options there.
        form: the same, beside the image.
    """

    data: bytes
    query: list[tuple[str, str]]
    form: list[tuple[str, str]]


async def receive_upload(request: Request) -> Upload:
    """Read a request whole.

    Raises:
        Refusal: it is of another type, damaged, or has no image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = list(request.query_params.multi_items())
    if kind == "multipart/form-data":
        data, form = await _from_form(request)
        return Upload(data, query, form)
    if not kind.startswith("image/"):
        raise Refusal(415, "kind", f"`Content-Type` should be {_WAYS}. Found another.")
    return Upload(_some(b"".join([chunk async for chunk in request.stream()])), query, [])


async def _from_form(request: Request) -> tuple[bytes, list[tuple[str, str]]]:
    parser = _InMemory(
        request.headers, _chunks(request), max_files=1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, "form", f"The form should be {_WAYS}. Found: {error.message}") from None
    try:
        files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        if [name for name, _ in files] != [FIELD]:
            raise Refusal(
                400, "form", f"The form should have one file, named `{FIELD}`. Found another, or none."
            )
        data = _some(await files[0][1].read())
    finally:
        parser.close()
    return data, [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


class _InMemory(MultiPartParser):
    """Uploads are small enough for memory, and nothing of them may reach a disk."""

    spool_max_size = 1 << 62

    def close(self) -> None:
        """Close all files; a form that breaks off does not name the last one."""
        for file in self._files_to_close_on_error:
            file.close()


async def _chunks(request: Request) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        yield chunk


def _some(data: bytes) -> bytes:
    if not data:
        raise Refusal(400, "form", f"`{FIELD}` should be the bytes of an image. Found none.")
    return data


def prefers_json(accept: str, image: str) -> bool:
    """Whether a client would rather have JSON than an image of some media type.

    The image is what comes where nothing is said, where both are equally welcome by equally exact words, and where
    neither is. `application/json, */*`, which many clients send, is for JSON.

    >>> prefers_json("image/jpeg, application/json;q=0.1", "image/jpeg")
    False
    >>> prefers_json("application/json, image/*;q=0.5", "image/jpeg")
    True
    """
    return quality(accept, JSON) > quality(accept, image)


def quality(accept: str, kind: str) -> tuple[float, int]:
    """How welcome a media type is, 0 to 1, and how exactly it is named: by `*/*` 0, `image/*` 1, `image/png` 2.

    What is exact goes before what is not, whatever its weight. Parameters of a type are not told apart.

    >>> quality("image/*;q=0.5, */*;q=0.1", "image/png")
    (0.5, 1)
    """
    names = {"*/*": 0, f"{kind.partition('/')[0]}/*": 1, kind: 2}
    found = {names[name]: weight for name, weight in _ranges(accept) if name in names}
    exact = max(found, default=0)
    weight = found.get(exact, 0.0)
    return weight, exact if weight else 0


def _ranges(accept: str) -> list[tuple[str, float]]:
    """Media ranges and their weights; what cannot be read is left out."""
    ranges = []
    for element in parse_http_list(accept):
        name, *parameters = [part.strip() for part in _PART.findall(element)] or [""]
        weights = [each for each in parameters if each[:1].lower() == "q" and each[1:].lstrip()[:1] == "="]
        read = [_QUALITY.fullmatch(each) for each in weights[-1:]]
        if name and None not in read:
            ranges.append((name.lower(), float(read[0][1]) if read and read[0] else 1.0))
    return ranges
