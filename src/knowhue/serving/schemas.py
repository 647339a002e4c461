"""The API's options and answers, and how its OpenAPI describes them."""

from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from knowhue.config import Count, Fraction, Saturation, Section, Task
from knowhue.inference.colorizer import Colorizer
from knowhue.inference.colour_distribution import MOST_ANSWERS, samples_of
from knowhue.inference.description import Fast, ScoreInterval
from knowhue.inference.requests import IMAGE_FIELD, REFERENCE_FIELD, STROKES_FIELD

MOST_HINTS = 64
_HintText = Annotated[str, Field(max_length=100, json_schema_extra={"format": "hint"})]
Format = Literal["jpg", "png", "webp", "tif", "avif", "ora"]
MEDIA_TYPES: dict[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".avif": "image/avif",
    ".ora": "image/openraster",
}
_FILE = {"type": "string", "format": "binary"}
IMAGES = {kind: {"schema": _FILE} for kind in dict.fromkeys(MEDIA_TYPES.values())}
_REFUSALS = (400, 401, 403, 404, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504, 505)


class ClassOptions(Section):
    """How to classify."""

    files: ClassVar[dict[str, str]] = {IMAGE_FIELD: "the image"}
    """that a form may hold, and what each is"""
    model: Annotated[str, Field(max_length=200)] | None = None
    """one of `/v1/models`; the first if none is named"""
    unknown_below: Fraction | None = None
    """probability below which the class is `unknown`; the model's own limit if none"""


class ColourOptions(ClassOptions):
    """How to colour."""

    files: ClassVar[dict[str, str]] = {
        IMAGE_FIELD: "the image",
        REFERENCE_FIELD: "a colour photo of the same scene, or of like things, whose colours are taken; in forms alone",
        STROKES_FIELD: "a transparent image as large as the photo; what is painted on it is met there; in forms alone",
    }
    saturation: Saturation = 1.0
    """what the chroma is multiplied by; 0 is gray"""
    hints: Annotated[tuple[_HintText, ...], Field(max_length=MOST_HINTS)] = ()
    """points with a colour, `X,Y=COLOUR`, such as `30%,40%=orange` or `120,80=#c83232`"""
    format: Format | None = None
    """of the answer, `ora` for the gray image and its colours as layers; that of the image if none"""
    max_px: Count | None = None
    """longest side of the answer, for a preview; colours and class stay those of the whole image"""
    sample: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = 1
    """which colouring, each the same every time; 1 is the usual one, the model's `samples` says how many"""
    uncertainty: bool = False
    """also say where the colours are unsure; one more prediction, or six of a model without 313 colours"""
    fast: Fast = False


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorAnswer(_Answer):
    """What went wrong, and how to mend it."""

    error: str


class StatusAnswer(_Answer):
    """How the server is."""

    status: str


class JudgementAnswer(_Answer):
    """What is said of an image."""

    model: str
    label: str | None
    """most probable class; `unknown` if none is probable enough, or novelty is above 1"""
    probability: float | None
    """0 to 1, of the most probable class"""
    probabilities: dict[str, float]
    """of all classes, most probable first"""
    novelty: float | None
    """above 1 the image is unlike those that the model was trained on; none of a model that does not tell"""
    chroma: float | None
    """mean C*, CIELAB units"""
    colourfulness: float | None
    """Hasler and Suesstrunk 2003"""
    reduced: float | None
    """share of pixels whose chroma was reduced to fit sRGB"""
    warnings: list[str]
    found_in_reference: float | None = None
    """share of the image that was found in the reference; none without one"""


class UncertaintyAnswer(_Answer):
    """Where the colours are unsure."""

    mean: float
    """CIELAB units"""
    map: str
    """gray PNG in base64, 5 codes a CIELAB unit"""


class FullAnswer(_Answer):
    """What comes without `max_px` and `format`."""

    width: int
    """pixels"""
    height: int
    """pixels"""
    media_type: str


class ColourAnswer(JudgementAnswer):
    """A coloured image and what is said of it."""

    image: str
    """the file in base64"""
    media_type: str
    fast: bool
    """seen at one size, for `fast` or because the server runs so, by a model that sees photos at several"""
    uncertainty: UncertaintyAnswer | None = None
    full: FullAnswer | None = None
    """only with `max_px`"""


class TrainedOn(_Answer):
    """The images that a model has learned from."""

    source: str | None
    """`drawn` are scenes of this project; others are photos"""
    images: int | None


class ModelAnswer(_Answer):
    """A model that the server runs."""

    name: str
    tasks: tuple[Task, ...]
    classes: tuple[str, ...]
    size_px: int
    metrics: dict[str, ScoreInterval]
    unknown_below: float
    licence: str
    trained_on: TrainedOn
    samples: int
    """different colourings that `sample` may ask for"""
    sizes: int
    """at which it sees each photo; with `fast` it is one"""

    @classmethod
    def of(cls, name: str, colorizer: Colorizer) -> "ModelAnswer":
        """Of a model that is ready to predict."""
        found = colorizer.network.description
        return cls(
            name=name,
            tasks=found.tasks,
            classes=found.classes if "class" in found.tasks else (),
            size_px=found.size_px,
            metrics={
                name: ScoreInterval(**{key: _digits(value) for key, value in score})
                for name, score in found.metrics.items()
            },
            unknown_below=_digits(found.unknown_below),
            licence=found.licences,
            trained_on=TrainedOn.model_validate(
                {"source": found.images.get("source"), "images": found.images.get("train")}
            ),
            samples=samples_of(colorizer.network),
            sizes=colorizer.sizes,
        )


def body_schema(kind: type[ClassOptions]) -> dict[str, Any]:
    """How OpenAPI describes a route that takes an image, with its options in the query or in the form."""
    options = {name: _without_null(schema) for name, schema in kind.model_json_schema()["properties"].items()}
    form = {
        "type": "object",
        "properties": {name: _FILE | {"description": what} for name, what in kind.files.items()} | options,
        "required": [IMAGE_FIELD],
        "additionalProperties": False,
    }
    query = [
        {
            "name": name,
            "in": "query",
            "description": schema["description"],
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in options.items()
    ]
    content = {"multipart/form-data": {"schema": form}, "image/*": {"schema": _FILE}}
    return {"parameters": query, "requestBody": {"required": True, "content": content}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """An option that may be left out is never null, for text knows none."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    left = {
        key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)
    }
    return left | (kinds[0] if kinds else {})


def _digits(value: float) -> float:
    """A number with the digits that a score is shown with."""
    return float(f"{value:.4g}")


def header(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string"}, "description": description}


def refusals() -> dict[int | str, dict[str, Any]]:
    """All errors look alike."""
    known: dict[int | str, dict[str, Any]] = {
        code: {"model": ErrorAnswer, "description": HTTPStatus(code).phrase} for code in _REFUSALS
    }
    known[429]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return known
