"""The page's cards in HTML: the chosen photo as each model colours it, and what the model says of it."""

from collections.abc import Mapping
from urllib.parse import quote

from markupsafe import Markup

from knowhue.images.files import SUFFIXES_OF
from knowhue.inference.judgement import STILL_GRAY, UNKNOWN, Judgement
from knowhue.inference.networks import Description
from knowhue.serving.page_desk import Photo
from knowhue.serving.page_parts import role, titles
from knowhue.serving.page_work import UNSURE_AT, View

_MOST_CLASSES = 5


def stage(
    photo: Photo | None, views: Mapping[str, View], models: Mapping[str, Description], key: str
) -> Markup:
    """The chosen photo, by every model side by side."""
    if photo is None:
        return Markup(
            '<div class="empty"><p><b>No photo yet.</b> Drop one anywhere on this page, paste it, choose it, or take an '
            "example. It is coloured on the machine that serves this page, and forgotten when you leave.</p></div>"
        )
    called = titles(models)
    cards = Markup("").join(
        _card(number, photo, name, called[name], view, models[name], key)
        for number, (name, view) in enumerate(views.items())
    )
    return Markup('<div class="cards" data-count="{}">{}</div>').format(len(views), cards)


def _card(
    number: int,
    photo: Photo,
    name: str,
    title: str,
    view: View,
    description: Description,
    sitting_key: str,
) -> Markup:
    _, kind, taught = role(description)
    return Markup(
        '<article class="card {kind}" aria-labelledby="card-{number}"><header><h2 id="card-{number}">{title}</h2>'
        '<p title="{model}">{taught}</p></header>{frame}<footer>{link}</footer>'
        '<div class="says">{unsure}{warnings}{classes}</div></article>'
    ).format(
        kind=kind, number=number, title=title, taught=taught, model=description.name,
        frame=_frame(photo, view, title), classes=_classes(view.reply.judgement), unsure=_unsure(view),
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


def _unsure(view: View) -> Markup:
    """How to read the overlay; one without pink must not pass for certainty."""
    if view.most_unsure is None:
        return Markup("")
    chroma = view.reply.judgement.chroma
    is_gray = chroma is not None and chroma < STILL_GRAY
    return Markup(
        '<p class="note spread">Where it is least sure, its looks differ by {:.0f} CIELAB units (standard deviation); '
        "pink is strongest at {:.0f}.{}</p>"
    ).format(
        view.most_unsure, UNSURE_AT,
        " Little pink does not mean sure here: the photo stayed nearly gray, and gray hardly changes." if is_gray else "",
    )  # fmt: skip


def _classes(judgement: Judgement) -> Markup:
    if judgement.label is None:
        return Markup('<p class="note none">No class: this model was never told any.</p>')
    if judgement.is_novel:
        return Markup('<p class="note none">Class unknown.</p>')
    rows = Markup("").join(
        Markup(
            '<tr><th scope="row">{}</th><td class="bar" aria-hidden="true"><span style="--p:{:.4f}"></span></td>'
            "<td>{}</td></tr>"
        ).format(name, share, percent(share))
        for name, share in list(judgement.probabilities.items())[:_MOST_CLASSES]
    )
    best = (
        Markup("Not sure what it sees")
        if judgement.label == UNKNOWN
        else Markup("Sees <b>{}</b>").format(judgement.label)
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
    kind = next(name for name, suffixes in SUFFIXES_OF.items() if photo.suffix in suffixes)
    return Markup(
        '<a class="download" href="page/photos/{}/{}/{}" download>Download <span>{} × {} {}</span></a>'
    ).format(sitting_key, photo.key, quote(name, safe=""), width, height, kind)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
