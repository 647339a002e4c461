"""The judgement of a colouring or a class, in numbers and words: probability, novelty, chroma, warnings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from knowhue.color import FloatArray
from knowhue.errors import percent, plural, spaced
from knowhue.inference.description import Description
from knowhue.inference.pixels import PaintStats
from knowhue.inference.recipes import RecipeDescription
from knowhue.runs import UNKNOWN

STILL_GRAY = 4.0
"""Mean chroma, CIELAB units, below which an image looks gray."""
OFTEN_REDUCED = 0.25
"""Share of pixels with reduced chroma above which a warning says so."""
HARDLY_FOUND = 0.05
"""Share of an image that was found in its reference, below which a warning says so."""
FEWEST_TO_TELL = 100
"""Validation images needed to estimate the distance that one in a hundred exceeds."""


class Judgement(NamedTuple):
    """What the model predicts for an image, with warnings."""

    label: str | None
    """the most probable class; `unknown` if none is probable enough or the image is unlike the training images; None
    without a class head"""
    probability: float | None
    probabilities: dict[str, float]
    """of all classes, the most probable first"""
    novelty: float | None
    """distance from the training images; above 1 the image is unlike them. None for third-party models"""
    chroma: float | None
    """mean C*, CIELAB units"""
    colourfulness: float | None
    """Hasler and Süsstrunk 2003, as published"""
    reduced: float | None
    """share of pixels whose chroma was reduced to fit sRGB at their lightness"""
    warnings: tuple[str, ...]
    """sentences: novelty first, then notes on reading the image, then doubts about the colours"""
    found_in_reference: float | None = None
    """share of the image that was found in the reference; None without one"""

    def headline(self) -> str | None:
        """The class and the three most probable ones; `unknown` alone for a novel image; None without a class head.

        If the image is not novel but its class is `unknown`, the reason is given.

        >>> Judgement("sea_lion", 0.75, {"sea_lion": 0.75, "dog": 0.25}, 0.5, None, None, None, ()).headline()
        'sea lion (sea lion 75 %, dog 25 %)'
        >>> Judgement("unknown", 0.75, {"cat": 0.75, "dog": 0.25}, 1.5, None, None, None, ()).headline()
        'unknown'
        >>> Judgement("unknown", 0.4, {"cat": 0.4, "dog": 0.3}, 0.5, None, None, None, ()).headline()
        'unknown, because none is probable enough (cat 40 %, dog 30 %)'
        """
        if self.label is None or is_novel(self.novelty):
            return self.label
        shares = ", ".join(
            f"{spaced(name)} {percent(share)}" for name, share in list(self.probabilities.items())[:3]
        )
        why = ", because none is probable enough" if self.label == UNKNOWN else ""
        return f"{spaced(self.label)}{why} ({shares})"

    def as_record(self) -> dict[str, Any]:
        """Plain values, rounded to four decimals, for JSON."""
        values = self._asdict() | {"warnings": list(self.warnings)}
        return {key: _rounded(value) for key, value in values.items()}


def is_hardly_found(found: float | None) -> bool:
    """Whether an image has a reference in which hardly anything of it was found."""
    return found is not None and found < HARDLY_FOUND


def is_novel(novelty: float | None) -> bool:
    """Whether a distance from the training images is unusual: above 1 or NaN; None is not.

    >>> is_novel(1.0), is_novel(1.2), is_novel(float("nan")), is_novel(None)
    (False, True, True, False)
    """
    return novelty is not None and not novelty <= 1  # not `novelty > 1`, which is false for NaN


def is_judgement_record(record: object) -> bool:
    """Whether a record from a file has the fields that `count_notable` needs, of the types that `as_record` writes."""
    match record:
        case {
            "novelty": None | int() | float(),
            "label": None | str(),
            "warnings": list(),
            "found_in_reference": None | int() | float(),
        }:
            return True
        case _:
            return False


def count_notable(records: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Count images by what a user should know about them, from their `as_record`.

    >>> record = {"novelty": 1.2, "label": "unknown", "warnings": ["unlike"], "found_in_reference": None}
    >>> count_notable([record, record | {"novelty": 0.5}])
    Counter({'unknown': 2, 'warned': 2, 'novel': 1, 'hardly_found': 0})
    """
    counts = Counter(novel=0, unknown=0, warned=0, hardly_found=0)
    for record in records:
        counts["novel"] += is_novel(record["novelty"])
        counts["unknown"] += record["label"] == UNKNOWN
        counts["warned"] += bool(record["warnings"])
        counts["hardly_found"] += is_hardly_found(record["found_in_reference"])
    return counts


def can_tell_novelty(description: Description) -> bool:
    """Whether the limit of novelty was fitted on enough validation images to be reliable."""
    return int(description.images.get("validation", 0)) >= FEWEST_TO_TELL


def judge_image(
    description: Description | RecipeDescription,
    probabilities: FloatArray | None,
    novelty: float | None,
    painted: PaintStats | None,
    notes: Sequence[str] = (),
    unknown_below: float | None = None,
    saturation: float = 1.0,
    found_in_reference: float | None = None,
) -> Judgement:
    """Make the judgement of an image from a network's predictions (those of one image) and statistics of painting.

    `notes` are remarks on reading the image. `unknown_below` replaces the description's. A `saturation` below 1 makes
    the image grayer, which then causes no warning.
    """
    label = probability = None
    ranked: dict[str, float] = {}
    if probabilities is not None:
        # stable: of equal probabilities the first class wins on every machine
        order = np.argsort(-probabilities, kind="stable")
        ranked = {description.classes[k]: float(probabilities[k]) for k in order}
        probability = float(probabilities[order[0]])
        limit = description.unknown_below if unknown_below is None else unknown_below
        is_known = probability >= limit and not is_novel(novelty)
        label = description.classes[order[0]] if is_known else UNKNOWN
    return Judgement(
        label,
        probability,
        ranked,
        novelty,
        *(painted or (None, None, None)),
        (
            *_novelty_warnings(description, novelty),
            *notes,
            *_colour_warnings(painted, saturation, found_in_reference),
        ),
        found_in_reference,
    )


def warnings_of_many(
    description: Description | RecipeDescription, novel: int, of: int, what: str
) -> list[str]:
    """Warnings about many images at once."""
    found = _reliability_warnings(description) if of else []
    if novel:
        are = "is" if novel == 1 else "are"
        unlike = f"{novel} of {plural(of, what)} {are} unlike the images that this model was trained on"
        found = [f"{unlike}: {_guesses(description)}", *found]
    return found


def _novelty_warnings(description: Description | RecipeDescription, novelty: float | None) -> list[str]:
    if not is_novel(novelty):
        return _reliability_warnings(description)
    # enough digits that a distance above 1 does not read as 1
    texts = (f"{novelty or 0:.{places}f}" for places in range(2, 7))
    distance = next((text for text in texts if float(text) > 1), f"{novelty:.2f}")
    unlike = f"unlike the images that the model was trained on (distance {distance}, usual up to 1)"
    return [f"{unlike}: {_guesses(description)}", *_reliability_warnings(description)]


def _guesses(description: Description | RecipeDescription) -> str:
    what = " and ".join({"colour": "colours", "class": "class"}[task] for task in description.tasks)
    return f"{what} are guesses" if "colour" in description.tasks else f"{what} is a guess"


def _reliability_warnings(description: Description | RecipeDescription) -> list[str]:
    if isinstance(description, RecipeDescription) or can_tell_novelty(description):
        return []
    return [
        f"too few validation images ({description.images.get('validation', 0)}; {FEWEST_TO_TELL} are needed) to tell "
        "reliably what is unlike the images that the model was trained on"
    ]


def _colour_warnings(painted: PaintStats | None, saturation: float, found: float | None) -> list[str]:
    if painted is None:
        return []
    warnings = []
    if painted.chroma < STILL_GRAY * min(saturation, 1):
        warnings.append(
            f"still nearly gray (mean chroma {painted.chroma:.1f}): the model found little to colour"
        )
    if painted.reduced > OFTEN_REDUCED:
        warnings.append(
            f"{100 * painted.reduced:.0f} % of the pixels were given colours that sRGB cannot show at their lightness; "
            "their chroma was reduced"
        )
    if found is not None and is_hardly_found(found):
        share = f"hardly anything of it was found in the reference ({100 * found:.0f} %)"
        warnings.append(f"{share}: it gave the photo a tint at most")
    return warnings


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return {key: _rounded(each) for key, each in value.items()} if isinstance(value, dict) else value
