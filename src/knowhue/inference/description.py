"""What a model says of itself, as it stands in its file: tasks, classes, data, scores, calibration.

Importing this needs no torch.
"""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from knowhue.config import Config, Count, Fraction, Section, Task, fingerprint
from knowhue.errors import WeightsError, shown
from knowhue.metric_table import METRICS
from knowhue.runs import Start

KEY = "knowhue"
"""Under which a file's metadata holds the description, as JSON."""
_SCHEMA = {"schema": "schema_", "schema_version": "schema_version"}
"""Keys of the description that say which form it has, and their fields."""
DEFAULT_UNKNOWN_BELOW = 0.5
"""What nobody measured: a class is named if it is more probable than all others together."""
Fast = Annotated[
    bool,
    Field(
        description="see each photo at one size, not at three: a third of the network's time, more blotches"
    ),
]


class ModelChoice(NamedTuple):
    """A model and how it is used, as `Colorizer.load` takes them."""

    model: str
    recipe: str | None = None
    sha256: str | None = None
    fast: bool = False


def model_as_used(name: str, fast: bool) -> str:
    """A model as a terminal and the metadata of a file name it.

    >>> model_as_used("built-in", False), model_as_used("built-in", True)
    ('built-in', 'built-in, at one size (--fast)')
    """
    return f"{name}, at one size (--fast)" if fast else name


class ScoreInterval(Section):
    """A score and its 95 % interval over the images it was measured on: normal, or Wilson's for a share."""

    value: float
    low: float
    high: float


class Calibration(Section):
    """What a temperature does to the class probabilities (Guo et al. 2017).

    The errors are cross-fitted: each fifth of the images is judged with a temperature fitted on the others.
    """

    temperature: Annotated[float, Field(ge=0.01, le=100)]
    """as fitted; it is applied if it helps"""
    ece_before: Fraction
    """expected calibration error as trained, 0 to 1"""
    ece_after: Fraction
    """the same with a fitted temperature"""
    images: Count

    @property
    def helps(self) -> bool:
        """Whether the temperature makes the probabilities mean more nearly what they say."""
        return self.ece_after < self.ece_before

    @property
    def applied(self) -> float:
        """What the logits are divided by: the temperature if it helps, else 1."""
        return self.temperature if self.helps else 1.0

    def sentence(self) -> str:
        """What was done, and what it was measured to do.

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
    """for people, such as `multi, seed 0 of runs/photos`"""
    version: str
    config: Config
    classes: tuple[Annotated[str, Field(min_length=1, max_length=255)], ...]
    size_px: Annotated[int, Field(ge=16, le=1024)]
    """short side of its input, pixels"""
    images: dict[str, int | str]
    metrics: dict[str, ScoreInterval]
    """validation scores by the names of `METRICS`"""
    calibration: Calibration | None = None
    references: Count
    """training images whose features tell what is usual"""
    novelty_limit: Annotated[float, Field(ge=1e-6, le=2)]
    """distance from the training images that one validation image in a hundred exceeds"""
    unknown_below: Fraction = DEFAULT_UNKNOWN_BELOW
    """a class less probable than this is answered as unknown"""
    precision: str = "float32"
    """of the stored weights"""
    licence: str = ""
    start: Start | None = None
    """what it was trained from, other than an encoder"""

    @model_validator(mode="after")
    def _can_be_put_to_work(self) -> "Description":
        if not self.config.has_encoder:
            raise ValueError(f"`{self.config.colour.method}`, a network from scratch, cannot be put to work")
        if "class" in self.tasks and len(self.classes) < 2:
            raise ValueError(f"two classes or more are needed, found {len(self.classes)}")
        if len({*self.classes}) < len(self.classes):
            raise ValueError("classes need names of their own, found one twice")
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise ValueError(f"scores are named as in METRICS, found {shown(unknown[0])}")
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.config.tasks.names

    @property
    def licences(self) -> str:
        """Of the weights, and where it is another one, of those that they started from; empty if none is stated."""
        stated = [self.licence] if self.licence else []
        if self.start is not None and self.start.licence not in ("", self.licence):
            stated.append(f"of `{Path(self.start.model).name}`, which it started from: {self.start.licence}")
        return "; ".join(stated)

    def fingerprint(self) -> str:
        """What tells two trainings apart, by the numbers fitted in each; a copy by another name has the same.

        One whose weights are kept in another precision has another: it colours a little otherwise.
        """
        return fingerprint(self.model_dump(mode="json", exclude={"name", "licence"}))

    @property
    def temperature(self) -> float:
        """What the logits are divided by: a fitted temperature that helps, else 1."""
        return self.calibration.applied if self.calibration else 1.0


def read_description(text: str | None, path: Path) -> Description:
    """The description stored with weights; a `WeightsError` if there is none, or it is of another version."""
    if text is None:
        raise WeightsError(
            f"`{path}` should be a model that `knowhue export` made. Found weights without a description: a run's "
            "model.safetensors is not one, export its run folder; another's .onnx goes with its `recipe`."
        )
    try:
        description = Description.model_validate_json(text)
    except ValidationError as error:
        problems = {".".join(map(str, each["loc"])): each["msg"] for each in error.errors()}
        # first, as another version may well have other fields
        if problems.keys() & _SCHEMA.keys():
            raise _other_version(path) from None
        where, problem = next(iter(problems.items()))
        raise WeightsError(
            f"`{path}` should be described as this version of knowhue does. Found at "
            f"`{where[:80]}`: {problem[:200]}. Upgrade knowhue, or export the run again."
        ) from None
    if not description.model_fields_set.issuperset(_SCHEMA.values()):  # the defaults are not its own words
        raise _other_version(path)
    return description


def _other_version(path: Path) -> WeightsError:
    return WeightsError(
        f"`{path}` was written by another version of knowhue, for it is not a `knowhue.model` of `schema_version` 1. "
        "Export its run again."
    )
