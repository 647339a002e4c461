"""The options and answers of the API, and their OpenAPI schemas."""

from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from knowhue.config import Fraction, PositiveInt, Saturation, Section, Task
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
_REFUSALS = (400, 401, 403, 404, 408, 413, 415, 421, 422, 429, 431, 500, 503, 504)


class ClassOptions(Section):
    """Options of `/v1/classify`."""

    files: ClassVar[dict[str, str]] = {IMAGE_FIELD: "image file"}
    """files that a form can have, and their descriptions"""
    model: Annotated[str, Field(max_length=200)] | None = None
    """name of a model of `/v1/models`; by default the first"""
    unknown_below: Fraction | None = None
    """probability, 0 to 1, below which the class is `unknown`; by default the model's `unknown_below`"""


class ColourOptions(ClassOptions):
    """Options of `/v1/colorize`."""

    files: ClassVar[dict[str, str]] = {
        IMAGE_FIELD: "image file",
        REFERENCE_FIELD: "colour photo of the same or a similar scene, whose colours are used; only in a form",
        STROKES_FIELD: "transparent image of the size of the photo; painted pixels give colours there; only in a form",
    }
    saturation: Saturation = 1.0
    """factor for the chroma of the colours; 0 is gray"""
    hints: Annotated[tuple[_HintText, ...], Field(max_length=MOST_HINTS)] = ()
    """colours at points, `X,Y=COLOUR`, with x and y from the top left in pixels or per cent, such as `120,80=#c83232`
    or `30%,40%=orange`; repeat the option for several"""
    format: Format | None = None
    """format of the answer; `ora` has the gray image and its colours as layers; by default that of the image"""
    max_px: PositiveInt | None = None
    """longest side of the answer, pixels, for a preview; colours and class are those of the whole image"""
    sample: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] = 1
    """number of the colouring, up to the model's `samples`; 1 is the default one, and each is reproducible"""
    uncertainty: bool = False
    """also return how uncertain the colours are; takes one more prediction, or six for a model without 313 colours"""
    fast: Fast = False


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorAnswer(_Answer):
    """An error."""

    error: str
    """what is wrong, and how to fix it"""


class StatusAnswer(_Answer):
    """The state of the server."""

    status: str
    """`ok` or `ready`"""


class JudgementAnswer(_Answer):
    """The class of an image, and measures of its colours."""

    model: str
    """name of the model that answered"""
    label: str | None
    """most probable class; `unknown` if its probability is too low or novelty is above 1; null without a class head"""
    probability: float | None
    """probability of the most probable class, 0 to 1; null without a class head"""
    probabilities: dict[str, float]
    """probability of each class, 0 to 1, most probable first"""
    novelty: float | None
    """how unlike the training images the image is; above 1, it is unlike them; null if the model does not measure it"""
    chroma: float | None
    """mean chroma C*, CIELAB units; null if the image was not coloured"""
    colourfulness: float | None
    """colourfulness by Hasler and Süsstrunk (2003); null if the image was not coloured"""
    reduced: float | None
    """share of pixels whose chroma was reduced to fit sRGB, 0 to 1; null if the image was not coloured"""
    warnings: list[str]
    """what to know before relying on the class or the colours"""
    found_in_reference: float | None = None
    """share of the image that was found in the reference, 0 to 1; null without a reference"""


class UncertaintyAnswer(_Answer):
    """How uncertain the colours are."""

    mean: float
    """mean over the image, CIELAB units"""
    map: str
    """map as a gray PNG in base64, 5 levels per CIELAB unit"""


class FullAnswer(_Answer):
    """The image that a request without `max_px` and `format` returns."""

    width: int
    """width, pixels"""
    height: int
    """height, pixels"""
    media_type: str
    """media type, such as `image/jpeg`"""


class ColourAnswer(JudgementAnswer):
    """A coloured image, its class, and measures of its colours."""

    image: str
    """image file in base64"""
    media_type: str
    """media type of `image`, such as `image/jpeg`"""
    fast: bool
    """whether a model that predicts at several sizes used only one, by `fast` or `knowhue serve --fast`"""
    uncertainty: UncertaintyAnswer | None = None
    """only with `uncertainty`"""
    full: FullAnswer | None = None
    """only with `max_px`"""


class TrainedOn(_Answer):
    """The training images of a model."""

    source: str | None
    """kind of source; `drawn` are drawn scenes, all others are images of files"""
    images: int | None
    """number of training images"""


class ModelAnswer(_Answer):
    """A model of the server."""

    name: str
    """value of the option `model`"""
    tasks: tuple[Task, ...]
    """the tasks that it was trained for"""
    classes: tuple[str, ...]
    """names of its classes; empty without a class head"""
    size_px: int
    """side of the square that images are resized to for the network, pixels"""
    metrics: dict[str, ScoreInterval]
    """scores on held-out images, with the 95 % interval from `low` to `high`"""
    unknown_below: float
    """probability, 0 to 1, below which a class is `unknown` by default"""
    licence: str
    """licence of the weights; empty if not stated"""
    trained_on: TrainedOn
    samples: int
    """number of different colourings, the largest `sample`"""
    sizes: int
    """number of sizes at which it predicts each photo; 1 with `fast`"""

    @classmethod
    def of(cls, name: str, colorizer: Colorizer) -> "ModelAnswer":
        """Describe an opened model."""
        description = colorizer.network.description
        return cls(
            name=name,
            tasks=description.tasks,
            classes=description.classes if "class" in description.tasks else (),
            size_px=description.size_px,
            metrics={
                name: ScoreInterval(**{key: _digits(value) for key, value in score})
                for name, score in description.metrics.items()
            },
            unknown_below=_digits(description.unknown_below),
            licence=description.licences,
            trained_on=TrainedOn.model_validate(
                {"source": description.images.get("source"), "images": description.images.get("train")}
            ),
            samples=samples_of(colorizer.network),
            sizes=colorizer.sizes,
        )


def body_schema(kind: type[ClassOptions]) -> dict[str, Any]:
    """Return the OpenAPI schema of a route that takes an image, with options in the query or in a form."""
    options = {name: _without_null(schema) for name, schema in kind.model_json_schema()["properties"].items()}
    form = {
        "type": "object",
        "properties": {name: _FILE | {"description": what} for name, what in kind.files.items()} | options,
        "required": [IMAGE_FIELD],
        "additionalProperties": False,
    }
    query = [
        {"name": name, "in": "query", "description": schema["description"], "schema": schema}
        for name, schema in options.items()
    ]
    content = {"multipart/form-data": {"schema": form}, "image/*": {"schema": _FILE}}
    return {"parameters": query, "requestBody": {"required": True, "content": content}}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an option without null, which query and form cannot express."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    left = {
        key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)
    }
    return left | (kinds[0] if kinds else {})


def _digits(value: float) -> float:
    """Round to four significant digits."""
    return float(f"{value:.4g}")


def header(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string"}, "description": description}


def refusals() -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI descriptions of the errors, which all have the same body."""
    known: dict[int | str, dict[str, Any]] = {
        code: {"model": ErrorAnswer, "description": HTTPStatus(code).phrase} for code in _REFUSALS
    }
    known[429]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}}
    return known
