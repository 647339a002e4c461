"""The model card: what a model does, how well, from what, and where it should not be trusted."""

from typing import Any

import yaml

from knowhue.description import Description, Interval
from knowhue.inference.judgement import can_tell_novelty

SCORES: dict[str, tuple[str, str]] = {
    "ab_l1": ("Mean absolute error of a\\*b\\*, CIELAB units", "lower"),
    "ciede2000": ("CIEDE2000 colour difference", "lower"),
    "psnr_rgb": ("PSNR of the RGB image, dB", "higher"),
    "ssim_rgb": ("SSIM of the RGB image", "higher"),
    "accuracy": ("Share of images given their class", "higher"),
}
VERBS = {"colour": "colours", "class": "classifies"}
LICENCES = frozenset(
    {"mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"}
)
"""Identifiers of the hub; any other text becomes `other` with its words."""


def model_card(description: Description) -> str:
    """Markdown with the hub's front matter.

    Args:
        description: of the model; what it does not know is said to be unknown.
    """
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(description), sort_keys=False, allow_unicode=True)}---",
        f"# {description.name}: a model that {_does(description)} grayscale photographs",
        _what(description),
        "## Use\n\n" + _use(description),
        "## Data\n\n" + _data(description),
        "## Measured\n\n" + _measured(description),
        "## Limits\n\n" + _limits(description),
        f"## Licence\n\n{description.licence or 'Not stated.'}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(description: Description) -> dict[str, Any]:
    return {
        **_licence(description.licence),
        "library_name": "knowhue",
        "pipeline_tag": "image-to-image" if "colour" in description.tasks else "image-classification",
        "tags": [
            "knowhue",
            *(["image-colorization"] if "colour" in description.tasks else []),
            *(["image-classification"] if "class" in description.tasks else []),
        ],
    }


def _licence(text: str) -> dict[str, str]:
    if not text:
        return {"license": "unknown"}
    if text.lower() in LICENCES:
        return {"license": text.lower()}
    return {"license": "other", "license_name": text}


def _does(description: Description) -> str:
    return " and ".join(VERBS[task] for task in description.tasks)


def _what(description: Description) -> str:
    text = (
        f"A model that {_does(description)} grayscale photographs, made by knowhue {description.version}. Base: "
        f"`{description.config.encoder.name}`; weights stored in {description.precision}; it looks at images with a "
        f"short side of {description.size_px} pixels."
    )
    if "class" in description.tasks:
        text += f"\n\nClasses: {', '.join(description.classes)}."
    return text


def _use(description: Description) -> str:
    commands = [
        "pip install -e .  # in a clone of knowhue",
        "hf download OWNER/NAME --local-dir FOLDER",
        "knowhue models FOLDER",
    ]
    if "colour" in description.tasks:
        commands.append("knowhue colorize photo.jpg --model FOLDER -o photo-colour.jpg")
    verb = "colorize" if "colour" in description.tasks else "classify"
    shell = "\n".join(commands)
    return (
        f"```sh\n{shell}\n```\n\n```python\nfrom pathlib import Path\n\nfrom knowhue.inference.colorizer import "
        f'Colorizer\n\nanswer = Colorizer.load("FOLDER").{verb}(Path("photo.jpg"))\n```\n\n'
        "`model.safetensors` holds the weights and everything else that loading needs; loading runs no code from it. "
        "`config.json` is the same description, for reading."
    )


def _data(description: Description) -> str:
    seen = description.images
    kinds = {"drawn": "drawn by knowhue itself, no photographs", "folder": "a folder of images"}
    source = str(seen.get("source", "unknown"))
    where = description.config.images.path
    return (
        f"{seen.get('train', 'unknown')} training and {seen.get('validation', 'unknown')} validation images; source: "
        f"{kinds.get(source, source)}{f' (`{where}`)' if where else ''}. Fingerprint of the prepared images: "
        f"`{seen.get('fingerprint', 'unknown')}`."
    )


def _measured(description: Description) -> str:
    lines = [
        f"On the {description.images.get('measured_on', 'validation')} images, with 95 % intervals over images "
        "(one training run).",
        "",
        "| score | value | 95 % interval | better |",
        "|---|---|---|---|",
        *(_row(name, score) for name, score in description.metrics.items()),
    ]
    if description.calibration is not None:
        lines += ["", f"Class probabilities are {description.calibration.sentence()}."]
    return "\n".join(lines)


def _row(name: str, score: Interval) -> str:
    title, better = SCORES.get(name, (name, ""))
    return f"| {title} | {score.value:.3f} | {score.low:.3f} to {score.high:.3f} | {better} |"


def _limits(description: Description) -> str:
    limits = []
    if "colour" in description.tasks:
        limits += [
            "Colours are plausible guesses from lightness, not a record of what was there: no evidence of the colour "
            "of a flag, a uniform or a skin.",
            f"Colours are found at {description.size_px} pixels and brought to full size along the image's edges; "
            "small objects may stay gray or take their surroundings' colour.",
        ]
    if "class" in description.tasks:
        calibrated = description.calibration is not None and description.calibration.helps
        limits.append(
            "It knows no classes but those above. An image of something else is given one of them, or `unknown` "
            f"where none is {description.unknown_below:.0%} probable or the image is unlike the training images; "
            + (
                "the probabilities are calibrated for images like those alone."
                if calibrated
                else "the probabilities are not calibrated."
            )
        )
    limits.append(
        "An image unlike the training images is flagged by its distance (novelty above 1, which one validation "
        "image in a hundred exceeds); for such images the scores above promise nothing."
        if can_tell_novelty(description)
        else "Its validation images are too few to tell whether an image is like the training images."
    )
    return "\n".join(f"- {limit}" for limit in limits)
