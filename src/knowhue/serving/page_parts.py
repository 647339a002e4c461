"""The page's own pieces of HTML; gradio puts them where they belong and exchanges only what changed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from knowhue.inference.networks import Description
from knowhue.serving.page_desk import Photo, Pin, Sitting

TITLE = "Colour a gray photo"
SWATCHES = {
    "#e0b094": "skin",
    "#7fa9d6": "sky",
    "#6d8f4e": "leaves",
    "#2f8f9d": "sea",
    "#9c6b43": "wood",
    "#b5523b": "brick",
    "#d9c08a": "sand",
    "#c83232": "red",
    "#808080": "no colour",
}
"""Colours that old photos ask for."""
_LONGEST_LIST = 120
_ROLES = {
    ("colour", "class"): ("Multi-task", "multi", "learned colours and classes together"),
    ("colour",): ("Single-task", "single", "learned colours alone"),
    ("class",): ("Single-task", "single", "learned classes alone"),
}


def role(description: Description) -> tuple[str, str, str]:
    """What a model is called, its colour on the page, and how it was taught."""
    return _ROLES[tuple(sorted(description.tasks, key=("colour", "class").index))]


def titles(descriptions: Mapping[str, Description]) -> dict[str, str]:
    """What each model's card is headed by: its kind, or the name it is served by where several are of one kind."""
    kinds = {name: role(each)[0] for name, each in descriptions.items()}
    several = {kind for kind, count in Counter(kinds.values()).items() if count > 1}
    return {name: name if kind in several else kind for name, kind in kinds.items()}


def heading(descriptions: Mapping[str, Description]) -> Markup:
    """What is to be done here, and what the models know."""
    kinds = {role(each)[1] for each in descriptions.values()}
    if kinds == {"single", "multi"}:
        text = Markup(
            'The same photo, coloured by a model that learned <span class="single">colours alone</span> and by one that '
            'learned <span class="multi">colours and classes together</span>.'
        )
    else:
        text = Markup("It guesses colours from lightness, and the class if it learned any.")
    learned = " ".join(_learned(descriptions))
    return Markup('<p class="kicker">Knowhue</p><h1>{}</h1><p class="lead">{} {}</p>').format(
        TITLE, text, learned
    )


def _learned(descriptions: Mapping[str, Description]) -> list[str]:
    """What the models know anything about, each named where they differ, said before anything is uploaded."""
    seen = {name: _seen(each) for name, each in descriptions.items()}
    rest = "what {} of anything else is a guess."
    if len(set(seen.values())) == 1:
        who, makes = ("The model has", "it makes") if len(seen) == 1 else ("The models have", "they make")
        return [f"{who} seen {next(iter(seen.values()))}; {rest.format(makes)}"]
    called = titles(descriptions)
    return [
        f"The {called[name].lower()} model has seen {what}; {rest.format('it makes')}"
        if called[name] != name
        else f"The model {name} has seen {what}; {rest.format('it makes')}"
        for name, what in seen.items()
    ]


def _seen(description: Description) -> str:
    """How many of what a model was trained on."""
    what = "drawn scenes" if description.images.get("source") == "drawn" else "images"
    count = description.images.get("train", "an unknown number of")
    classes = ", ".join(description.classes)
    of = f" of {classes}" if classes and len(classes) <= _LONGEST_LIST else ""
    number = f"{count:,}" if isinstance(count, int) else count
    return f"{number} {what}{of}"


def examples(files: Sequence[Path]) -> Markup:
    """Images to begin with."""
    buttons = Markup("").join(
        Markup(
            '<button type="button" data-event="select" data-name="{name}" aria-label="Try the example {name}">'
            '<img src="page/examples/{name}.jpg" alt="" width="96" height="72"></button>'
        ).format(name=path.stem)
        for path in files
    )
    return Markup(
        '<p class="label" id="examples-label">Or try one of these</p><div class="examples" role="group" '
        'aria-labelledby="examples-label">{}</div>'
    ).format(buttons)


def palette() -> Markup:
    """Where a colour for the next point is picked."""
    swatches = Markup("").join(
        Markup(
            '<button type="button" class="swatch" data-colour="{0}" style="--c:{0}" aria-label="{1}" title="{1}"></button>'
        ).format(colour, name)
        for colour, name in SWATCHES.items()
    )
    return Markup(
        '<p class="label">Colour points</p>'
        '<p class="note">Say what colour something has: pick one, then touch the photo there.</p>'
        '<div class="palette"><label class="any"><input type="color" id="point-colour" value="#c83232">'
        '<span>Any colour</span></label><div class="swatches" role="group" aria-label="Usual colours">{}</div></div>'
        '<button type="button" id="point-mode" class="button" aria-pressed="false">Place points</button>'
    ).format(swatches)


def points(pins: Sequence[Pin]) -> Markup:
    """The points of the chosen photo, each with a way to remove it."""
    if not pins:
        return Markup('<div class="points"></div>')
    rows = Markup("").join(
        Markup(
            '<li><span class="dot" style="--c:{colour}"></span><span>{colour} at {x:.0f} %, {y:.0f} %</span>'
            '<button type="button" class="quiet" data-event="delete" data-index="{index}" '
            'aria-label="Remove point {number}, {colour}">Remove</button></li>'
        ).format(colour=pin.colour, x=100 * pin.x, y=100 * pin.y, index=index, number=index + 1)
        for index, pin in enumerate(pins)
    )
    return Markup(
        '<div class="points"><ol>{}</ol><button type="button" class="quiet" data-event="clear">Remove all points</button>'
        "</div>"
    ).format(rows)


def gallery(sitting: Sitting, models: Mapping[str, Description]) -> Markup:
    """All photos of a visitor, when there are several; and all of them in one file."""
    if len(sitting.photos) < 2:
        return Markup('<div class="gallery"></div>')
    items = Markup("").join(_thumb(photo, photo.key == sitting.chosen) for photo in sitting.photos.values())
    several, called = len(colouring(models)) > 1, titles(models)
    links = Markup("").join(
        Markup('<a class="download quiet" href="page/all/{}/{}" download>All {} as ZIP{}</a>').format(
            sitting.key,
            quote(name, safe=""),
            len(sitting.photos),
            f", {_within(called[name], name)}" if several else "",
        )
        for name in colouring(models)
    )
    return Markup('<div class="gallery"><ul aria-label="Photos">{}</ul><p class="zips">{}</p></div>').format(
        items, links
    )


def colouring(models: Mapping[str, Description]) -> dict[str, Description]:
    """Those that can colour."""
    return {name: each for name, each in models.items() if "colour" in each.tasks}


def says(message: str, is_alert: bool = False) -> Markup:
    """A line that screen readers speak."""
    return Markup('<p role="{}" class="{}">{}</p>').format(
        "alert" if is_alert else "status", "alert" if is_alert else "status", message
    )


def _thumb(photo: Photo, is_chosen: bool) -> Markup:
    return Markup(
        '<li><button type="button" class="thumb" data-event="select" data-key="{key}" aria-pressed="{pressed}" '
        'aria-label="Show {name}"><img src="page/looks/{look}" alt=""></button><button type="button" class="remove" '
        'data-event="delete" data-key="{key}" aria-label="Remove {name}" title="Remove">×</button></li>'
    ).format(
        key=photo.key,
        pressed=str(is_chosen).lower(),
        name=photo.name,
        look=photo.newest("thumb") or photo.newest("before"),
    )


def _within(title: str, name: str) -> str:
    """A card's title within a sentence; a served name stays as it is."""
    return title if title == name else title.lower()
