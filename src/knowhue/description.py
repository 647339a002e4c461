"""What a trained model says of itself: stored with its weights, shown by `knowhue models`, printed on its card."""

from pydantic import Field

from knowhue.config import Config, Positive, Section, Share, Task


class Interval(Section):
    """A score and its 95 % interval over the pictures it was measured on (normal approximation)."""

    value: float
    low: float
    high: float


class Calibration(Section):
    """How the class probabilities were made to mean what they say (Guo et al. 2017).

    The errors are cross-fitted: each fifth of the pictures is judged with a temperature fitted on the others.
    """

    temperature: Positive
    ece_before: float = Field(description="expected calibration error as trained, 0 to 1")
    ece_after: float = Field(description="the same with a fitted temperature")
    pictures: int


class Description(Section):
    """A model that colours, classifies, or both.

    Attributes:
        name: for people, such as `multi, seed 0 of runs/photos`.
        size_px: short side, pixels, at which it looks at a picture.
        references: training pictures whose features tell what is usual.
        novelty_limit: distance from the training pictures that one validation picture in a hundred exceeds.
        metrics: validation scores by the names of `METRICS`.
        precision: of the stored weights.
    """

    format: int = 1
    name: str
    version: str
    config: Config
    classes: tuple[str, ...]
    size_px: int
    pictures: dict[str, int | str]
    metrics: dict[str, Interval]
    calibration: Calibration | None = None
    references: int
    novelty_limit: Positive
    unknown_below: Share = Field(
        default=0.5, description="a class less probable than this is answered as unknown"
    )
    precision: str = "float32"
    licence: str = ""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can do."""
        return self.config.tasks.names
