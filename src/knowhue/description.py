"""What a trained model says of itself: stored with its weights, shown by `knowhue models`, printed on its card."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from knowhue.config import Config, Count, Fraction, Section, Task


class Interval(Section):
    """A score and its 95 % interval over the images it was measured on: normal, or Wilson's for a share."""

    value: float
    low: float
    high: float


class Calibration(Section):
    """What a temperature does to the class probabilities (Guo et al. 2017).

    The errors are cross-fitted: each fifth of the images is judged with a temperature fitted on the others.
    """

    temperature: Annotated[float, Field(ge=0.01, le=100)] = Field(
        description="as fitted; it is applied if it helps"
    )
    ece_before: Fraction = Field(description="expected calibration error as trained, 0 to 1")
    ece_after: Fraction = Field(description="the same with a fitted temperature")
    images: Count

    @property
    def helps(self) -> bool:
        """Whether the temperature makes the probabilities mean more nearly what they say."""
        return self.ece_after < self.ece_before

    def sentence(self) -> str:
        """What was done, and what it was measured to do.

        >>> Calibration(temperature=1.5, ece_before=0.1, ece_after=0.2, images=30).sentence()
        'not calibrated: a temperature makes the expected calibration error worse, 0.200 instead of 0.100 (30 images)'
        """
        if self.helps:
            return (
                f"calibrated by a temperature of {self.temperature:.2f}; expected calibration error "
                f"{self.ece_before:.3f} before, {self.ece_after:.3f} after ({self.images} images)"
            )
        return (
            "not calibrated: a temperature makes the expected calibration error worse, "
            f"{self.ece_after:.3f} instead of {self.ece_before:.3f} ({self.images} images)"
        )


class Description(Section):
    """A model that colours, classifies, or both.

    Attributes:
        name: for people, such as `multi, seed 0 of runs/photos`.
        size_px: short side, pixels, at which it looks at an image.
        references: training images whose features tell what is usual.
        novelty_limit: distance from the training images that one validation image in a hundred exceeds.
        metrics: validation scores by the names of `METRICS`.
        precision: of the stored weights.
    """

    format: Literal[1] = 1
    name: str
    version: str
    config: Config
    classes: tuple[Annotated[str, Field(min_length=1, max_length=255)], ...]
    size_px: Annotated[int, Field(ge=16, le=1024)]
    images: dict[str, int | str]
    metrics: dict[str, Interval]
    calibration: Calibration | None = None
    references: Count
    novelty_limit: Annotated[float, Field(ge=1e-6, le=2)]
    unknown_below: Fraction = Field(
        default=0.5, description="a class less probable than this is answered as unknown"
    )
    precision: str = "float32"
    licence: str = ""

    @model_validator(mode="after")
    def _can_be_put_to_work(self) -> "Description":
        if not self.config.has_encoder:
            raise ValueError(f"`{self.config.colour.method}`, a network from scratch, cannot be put to work")
        if "class" in self.tasks and len(self.classes) < 2:
            raise ValueError(f"two classes or more are needed, found {len(self.classes)}")
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can do."""
        return self.config.tasks.names

    @property
    def temperature(self) -> float:
        """What the logits are divided by: a fitted temperature that helps, else 1."""
        return self.calibration.temperature if self.calibration and self.calibration.helps else 1.0
