"""The description stored in a model's file: tasks, classes, data, scores, calibration.

Importing this module does not import torch.
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from knowhue.config import Config, Fraction, PositiveInt, Section, Task, fingerprint
from knowhue.errors import WeightsError, shown
from knowhue.metric_table import METRICS
from knowhue.runs import Start
from knowhue.storage import from_json

KEY = "knowhue"
"""Metadata key of the description, as JSON."""
_SCHEMA = ["knowhue.model", 1]
DEFAULT_UNKNOWN_BELOW = 0.5
"""Not tuned: a class is named if it is more probable than all others together."""
Fast = Annotated[
    bool,
    Field(
        description="predict each photo at one size, not three: a third of the network's time, more blotches"
    ),
]


class ModelChoice(NamedTuple):
    """A model and how to use it: the arguments of `Colorizer.load`."""

    model: str
    recipe: str | None = None
    sha256: str | None = None
    fast: bool = False


def model_as_used(name: str, fast: bool) -> str:
    """A model's name in the terminal and in the metadata of a file.

    >>> model_as_used("built-in", False), model_as_used("built-in", True)
    ('built-in', 'built-in, at one size (--fast)')
    """
    return f"{name}, at one size (--fast)" if fast else name


class ScoreInterval(Section):
    """A score and its 95 % interval over the measured images: normal, or Wilson's for a share."""

    value: float
    low: float
    high: float


class Calibration(Section):
    """The effect of a temperature on the class probabilities (Guo et al. 2017).

    The errors are cross-fitted: each fifth of the images is scored with a temperature fitted on the others.
    """

    temperature: Annotated[float, Field(ge=0.01, le=100)]
    """as fitted; applied only if it helps"""
    ece_before: Fraction
    """expected calibration error without a temperature, 0 to 1"""
    ece_after: Fraction
    """expected calibration error with a fitted temperature, 0 to 1"""
    images: PositiveInt

    @property
    def helps(self) -> bool:
        """Whether the temperature lowers the expected calibration error."""
        return self.ece_after < self.ece_before

    @property
    def applied(self) -> float:
        """The divisor of the logits: the temperature if it helps, else 1."""
        return self.temperature if self.helps else 1.0

    def sentence(self) -> str:
        """What was done, and its measured effect.

        >>> Calibration(temperature=1.5, ece_before=0.1, ece_after=0.2, images=30).sentence()
        'not calibrated: the expected calibration error of 0.100 would be 0.200 with a temperature (30 images)'
        """
        before, after = f"{self.ece_before:.3f}", f"{self.ece_after:.3f}"
        if self.helps:
            return (
                f"calibrated by a temperature of {self.temperature:.2f}; expected calibration error {before} before, "
                f"{after} after ({self.images} images)"
            )
        return (
            f"not calibrated: the expected calibration error of {before} would be {after} with a temperature "
            f"({self.images} images)"
        )


class Description(Section):
    """A model that colours, classifies, or both."""

    schema_: Literal["knowhue.model"] = Field(default="knowhue.model", alias="schema")
    schema_version: Literal[1] = 1
    name: str
    """to display, such as `multi, seed 0, of runs/photos`"""
    version: str
    config: Config
    classes: tuple[Annotated[str, Field(min_length=1, max_length=255)], ...]
    size_px: Annotated[int, Field(ge=16, le=1024)]
    """short side of its input, pixels"""
    images: dict[str, int | str]
    metrics: dict[str, ScoreInterval]
    """validation scores by the names of `METRICS`"""
    calibration: Calibration | None = None
    references: PositiveInt
    """number of training images whose features novelty is measured from"""
    novelty_limit: Annotated[float, Field(ge=1e-6, le=2)]
    """distance from the training images that one validation image in a hundred exceeds"""
    unknown_below: Fraction = DEFAULT_UNKNOWN_BELOW
    """probability below which the class is `unknown`"""
    precision: str = "float32"
    """number format of the stored weights"""
    licence: str = ""
    start: Start | None = None
    """the trained model that training started from, if any"""

    @model_validator(mode="after")
    def _is_deployable(self) -> "Description":
        if not self.config.has_encoder:
            raise ValueError(
                f"`{self.config.colour.method}`, a network trained from scratch, cannot be exported"
            )
        if "class" in self.tasks and len(self.classes) < 2:
            raise ValueError(f"two classes or more are needed, found {len(self.classes)}")
        if len({*self.classes}) < len(self.classes):
            raise ValueError("class names should differ, found one twice")
        for name in ("train", "validation"):
            if not isinstance(self.images.get(name, 0), int):
                raise ValueError(
                    f"`images.{name}` should be a whole number, found {shown(self.images[name])}"
                )
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise ValueError(f"scores should be named as in METRICS, found {shown(unknown[0])}")
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.config.tasks.names

    @property
    def licences(self) -> str:
        """The licence of the weights and, if different, of the model that they started from; empty if unknown."""
        stated = [self.licence] if self.licence else []
        if self.start is not None and self.start.licence not in ("", self.licence):
            stated.append(f"of `{Path(self.start.model).name}`, which it started from: {self.start.licence}")
        return "; ".join(stated)

    def fingerprint(self) -> str:
        """Identifies a training by its fitted numbers; a renamed copy has the same fingerprint.

        The same weights in another precision have another one, because their colours differ slightly.
        """
        return fingerprint(self.model_dump(mode="json", exclude={"name", "licence"}))

    @property
    def temperature(self) -> float:
        """The divisor of the class logits: a fitted temperature that helps, else 1."""
        return self.calibration.applied if self.calibration else 1.0


def read_description(text: str | None, path: Path) -> Description:
    """The description stored with weights; a `WeightsError` if it is missing, invalid or of another version."""
    if text is None:
        raise WeightsError(
            f"`{path}` should be a model that `knowhue export` made. Found weights without a description. Export the "
            "run folder instead of its model.safetensors; for a third-party .onnx file, name its recipe."
        )
    try:
        # checked first: another version can have other fields
        found = from_json(text)
        if not isinstance(found, dict) or [found.get(key) for key in ("schema", "schema_version")] != _SCHEMA:
            raise WeightsError(
                f"`{path}` was written by another version of knowhue: it is not a `knowhue.model` of `schema_version` "
                "1. Export its run again."
            )
        return Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where, problem = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    except ValueError as error:
        where, problem = "", f"Invalid JSON: {error}"
    at = f" at `{shown(where)}`" if where else ""
    raise WeightsError(
        f"`{path}` should have a description that this version of knowhue can read. Found{at}: "
        f"{shown(problem, 200)}. Upgrade knowhue, or export the run again."
    )
