"""The page's own pieces of HTML; gradio puts them where they belong and exchanges only what changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from knowhue.description import Description
from knowhue.inference.judgement import UNKNOWN, Judgement
from knowhue.serving.page_desk import Photo, Pin, Sitting
from knowhue.serving.page_work import View

QUESTION = "Does a model colour better when it knows what it is looking at?"
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
_MOST_CLASSES = 5
_ROLES = {
    ("colour", "class"): ("Multi-task", "multi", "learned colours and classes together"),
    ("colour",): ("Single-task", "single", "learned colours alone"),
    ("class",): ("Single-task", "single", "learned classes alone"),
}
_DEFAULT_RATIO = 4 / 3


def role(description: Description) -> tuple[str, str, str]:
    """What a model is called, its colour on the page, and how it was taught."""
    return _ROLES[tuple(sorted(description.tasks, key=("colour", "class").index))]


def heading(descriptions: Mapping[str, Description]) -> Markup:
    """The project's question, and what is to be seen here."""
    kinds = {role(each)[1] for each in descriptions.values()}
    if kinds == {"single", "multi"}:
        text = Markup(
            'The same photo, coloured by a model that learned <span class="single">colours alone</span> and by one that '
            'learned <span class="multi">colours and classes together</span>.'
        )
    else:
        text = Markup("Give it an old photo: it answers with colours, and says what it sees.")
    return Markup('<p class="kicker">Knowhue</p><h1>{}</h1><p class="lead">{}</p>').format(QUESTION, text)


def examples(files: Sequence[Path]) -> Markup:
    """Pictures to begin with."""
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
    several = len(colouring(models)) > 1
    links = Markup("").join(
        Markup('<a class="download quiet" href="page/all/{}/{}" download>All {} as ZIP{}</a>').format(
            sitting.key,
            quote(name, safe=""),
            len(sitting.photos),
            f", {role(each)[0].lower()}" if several else "",
        )
        for name, each in colouring(models).items()
    )
    return Markup('<div class="gallery"><ul aria-label="Photos">{}</ul><p class="zips">{}</p></div>').format(
        items, links
    )


def colouring(models: Mapping[str, Description]) -> dict[str, Description]:
    """Those that can colour."""
    return {name: each for name, each in models.items() if "colour" in each.tasks}


def stage(
    photo: Photo | None, views: Mapping[str, View], models: Mapping[str, Description], key: str
) -> Markup:
    """The chosen photo, by every model side by side."""
    if photo is None:
        return Markup(
            '<div class="empty"><p><b>No photo yet.</b> Drop one anywhere on this page, paste it, choose it, or take an '
            "example. It is coloured on the machine that serves this page, and forgotten when you leave.</p></div>"
        )
    cards = Markup("").join(
        _card(number, photo, name, view, models[name], key)
        for number, (name, view) in enumerate(views.items())
    )
    return Markup('<div class="cards" data-count="{}">{}</div>').format(len(views), cards)


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


def _card(
    number: int, photo: Photo, name: str, view: View, description: Description, sitting_key: str
) -> Markup:
    title, kind, taught = role(description)
    return Markup(
        '<article class="card {kind}" aria-labelledby="card-{number}"><header><h2 id="card-{number}">{title}</h2>'
        '<p title="{model}">{taught}</p></header>{frame}<footer>{link}</footer>'
        '<div class="says">{classes}{warnings}</div></article>'
    ).format(
        kind=kind, number=number, title=title, taught=taught, model=description.name,
        frame=_frame(photo, view, title), classes=_classes(view.reply.judgement),
        warnings=_warnings(view.reply.judgement), link=_link(photo, name, view, sitting_key),
    )  # fmt: skip


def _frame(photo: Photo, view: View, title: str) -> Markup:
    before = f"page/looks/{photo.newest('before')}"
    width, height = photo.size_px
    pins = Markup("").join(
        Markup('<li style="--x:{:.2f}%;--y:{:.2f}%;--c:{}"></li>').format(
            100 * pin.x, 100 * pin.y, pin.colour
        )
        for pin in photo.pins
    )
    return Markup(
        '<div class="frame" style="--ratio:{ratio:.4f}"><img class="after" src="{after}" alt="{name}, coloured by the '
        '{title} model" draggable="false"><img class="unsure" src="{unsure}" alt="" {hidden}><img class="before" '
        'src="{before}" alt="{name} in gray" draggable="false"><span class="tag gray" aria-hidden="true">Gray</span>'
        '<span class="tag colour" aria-hidden="true">Colour</span><ol class="pins" aria-hidden="true">{pins}</ol>'
        '<input class="split" type="range" min="0" max="100" value="50" aria-label="{title}: gray on the left of, '
        'colours on the right of"><span class="handle" aria-hidden="true"></span><div class="aim" tabindex="0" '
        'role="application" aria-label="{title}: place a colour point. Arrow keys move the cross, Enter places the '
        'colour."><span class="cross"></span></div></div>'
    ).format(
        ratio=width / height, after=before if view.after is None else f"page/looks/{view.after}", before=before,
        name=photo.name, title=title, pins=pins, unsure=f"page/looks/{view.unsure}" if view.unsure else "data:,",
        hidden=Markup("" if view.unsure else "hidden"),
    )  # fmt: skip


def _classes(judgement: Judgement) -> Markup:
    if judgement.label is None:
        return Markup('<p class="note none">No class: this model was never told any.</p>')
    rows = Markup("").join(
        Markup(
            '<tr><th scope="row">{}</th><td class="bar" aria-hidden="true"><span style="--p:{:.4f}"></span></td>'
            "<td>{}</td></tr>"
        ).format(_words(name), share, percent(share))
        for name, share in list(judgement.probabilities.items())[:_MOST_CLASSES]
    )
    best = (
        Markup("Not sure what it sees")
        if judgement.label == UNKNOWN
        else Markup("Sees <b>{}</b>").format(_words(judgement.label))
    )
    return Markup('<table class="classes"><caption>{}</caption><tbody>{}</tbody></table>').format(best, rows)


def percent(share: float) -> str:
    """A probability for people; never a certainty.

    >>> [percent(share) for share in (0.9999, 0.984, 0.5, 0.002)]
    ['> 99 %', '98 %', '50 %', '< 1 %']
    """
    if share > 0.995:
        return "> 99 %"
    return "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _warnings(judgement: Judgement) -> Markup:
    items = Markup("").join(Markup("<li>{}</li>").format(_sentence(each)) for each in judgement.warnings)
    return Markup('<ul class="warnings">{}</ul>').format(items)


def _link(photo: Photo, name: str, view: View, sitting_key: str) -> Markup:
    if view.after is None:
        return Markup("")
    width, height = photo.size_px
    kind = (
        view.reply.suffix.lstrip(".")
        .upper()
        .replace("JPG", "JPEG")
        .replace("TIF", "TIFF")
        .replace("TIFFF", "TIFF")
    )
    return Markup(
        '<a class="download" href="page/photos/{}/{}/{}" download>Download <span>{} × {} {}</span></a>'
    ).format(sitting_key, photo.key, quote(name, safe=""), width, height, kind)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
