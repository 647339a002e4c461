"""The page of `knowhue score`: conclusions, tables (also as LaTeX), and the images in which systems differ most."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from PIL import Image as Pillow

from knowhue.errors import plural
from knowhue.images.image import Pixels, to_8_bits
from knowhue.metric_table import OF_CLASSIFIER, RECOGNITION, SET_DISTANCES
from knowhue.report.latex import fill_latex, tex_table
from knowhue.report.page import fill
from knowhue.report.text import MISSING, TableCell, p_text, p_words, signed
from knowhue.scoring.files import short, shown_value
from knowhue.scoring.measures import BEST_OF, MEASURES
from knowhue.scoring.pairing import ALWAYS
from knowhue.scoring.parts import open_pixels
from knowhue.scoring.table import Difference, Scores, SetDistance
from knowhue.statistics import FEWEST_IMAGES
from knowhue.statistics.clustered import Nearness
from knowhue.statistics.paired import Interval

_SIDE = 176  # longer side of an image on the page, in pixels
_MOST = 3  # number of images shown for which one of two systems is nearer, and for which the other is
_BEST = "The best of several samples"
_RECOGNISED = {
    "recognition": "recognised, by a probe that learned the folders from other true images",
    "top1_accuracy": "top-1, the likeliest class is the folder's",
    "top5_accuracy": "top-5, one of the five likeliest is",
    "top1_agreement": "as the truth, the likeliest class is that of the true image, right or wrong",
}


class Group(NamedTuple):
    """Measures that are shown in one table."""

    title: str
    note: str
    names: tuple[str, ...]


_GROUPS = (
    Group(
        "Nearness to the true image",
        "",
        ("ciede2000", "ab_l1", "ab_auc", "ab_auc_balanced", "psnr_rgb", "ssim_rgb", "lpips_alex"),
    ),
    Group(
        "Recognised",
        "The share of images that a network names right, of the first sample where there are several: {recognised}. "
        "See below which network.",
        RECOGNITION,
    ),
    Group("As sets of images", "Of all images together, by a network; see below which.", SET_DISTANCES),
    Group(
        "Colourfulness and lightness",
        "Colourfulness M3 (Hasler and Süsstrunk 2003) by signed opponent values, as in the paper, and by absolute "
        "ones, as DDColor and others publish it. dCF of images is the mean of the images' differences, of means "
        "the difference of the sets' means: they are not the same number. L* should be the true image's.",
        tuple(name for name in MEASURES if "colourfulness" in name or name.startswith("lightness")),
    ),
    Group(
        _BEST,
        "The best sample of each image by that measure, chosen with the true image; diversity is the mean "
        "CIEDE2000, or LPIPS, between samples. All other tables hold means over samples.",
        (*(f"best_{name}" for name in BEST_OF), "diversity_ciede2000", "diversity_lpips"),
    ),
)


def render(scores: Scores, command: str) -> str:
    """The page as HTML, one file without external links."""
    primary = scores.protocol.primary
    return fill(
        "score.html",
        scores=scores,
        hash=short(scores.protocol.digest),
        sentences=[sentence(scores, each) for each in scores.differences if each.measure == primary],
        tables=[(each, _table(scores, each)) for each in _groups(scores)],
        differences=_difference_table(scores),
        fewest=FEWEST_IMAGES,
        has_intervals=any(each.interval for each in scores.differences),
        distances=_distance_table(scores),
        tests=_test_table(scores),
        most=[found for each in scores.pairs.systems if (found := _differ_most(scores, each.name))],
        primary=scores.measures[primary],
        command=command,
    )


def to_latex(scores: Scores) -> str:
    """The page's tables as LaTeX, below comments with the lines that the preamble needs."""
    level = f"{100 * (1 - scores.protocol.alpha):g} %"
    over = f", over {scores.pairs.folders} folders" if scores.pairs.folders else ""
    note = "means over images. L* is given to every system."
    tables = [(_table(scores, each), each.names, f"{each.title}: {note}") for each in _groups(scores)]
    tables += [
        (
            _difference_table(scores), [each.measure for each in scores.differences],
            f"mean paired differences, with intervals (together at {level}) and p by Bonferroni for all "
            f"{len(scores.differences)}{over}.",
        ),
        (
            _distance_table(scores), [each.measure for each in scores.distances],
            f"distances between sets, corrected for small-sample bias, with intervals at {level} by a jackknife.",
        ),
        (
            _test_table(scores), [each.measure for each in scores.tests],
            "images that count of the first row alone : of the second alone, and McNemar's exact test of them, p by "
            f"Bonferroni for {plural(len(scores.tests), 'test')}"
            + f"; it takes images as independent. The difference of the shares, its interval (together at {level}) and "
            f"its p are{over.removeprefix(',')}" * bool(over)
            + ".",
        ),
    ]  # fmt: skip
    lines = ("In the preamble:", *fill_latex("preamble.tex").splitlines())
    preamble = "".join(f"% {line}\n" for line in lines)
    return preamble + "".join(
        # without the protocol column, because the caption names the protocol
        tex_table([row[:-1] for row in cells], _caption(scores, names, title), f"score-{number}")
        for number, (cells, names, title) in enumerate(tables, 1)
        if cells
    )


def _caption(scores: Scores, names: Sequence[str], title: str) -> str:
    """The caption of a table: content, number of images, protocol, and the networks of its measures."""
    measures = dict.fromkeys(name.removeprefix("best_") for name in names)
    networks = []
    for key, about in scores.about.items():
        of_key = OF_CLASSIFIER if key == "classifier" else (key,)
        if own := [scores.measures[name].short for name in measures if name in of_key]:
            networks.append(f"{', '.join(own)} by {_named(about)}")
    protocol = f"protocol {scores.protocol.name} (SHA-256 {short(scores.protocol.digest)})"
    ending = f" Networks: {'; '.join(networks)}." if networks else ""
    return f"{plural(len(scores.pairs.truth), 'image')}, {protocol}; {title}{ending}"


def _named(about: Mapping[str, Any]) -> str:
    weights = f", weights {short(about['weights'])}" if "weights" in about else ""
    return f"{about['network']}{weights}"


def sentence(scores: Scores, found: Difference) -> str:
    """The conclusion about a system and the reference, as a sentence."""
    one, other = found.system, scores.reference
    like = "images like these" + ", from folders like these" * bool(scores.pairs.clusters)
    if found.interval == (0, 0):  # the same files, or equal scores: nothing to conclude
        return f"{one} and {other} score the same on every image: they are not compared."
    if found.word in (Nearness.FARTHER, Nearness.FARTHER_LITTLE):
        one, other = other, one
    text = {
        Nearness.AS_NEAR: f"{one} is as near as {other} on {like}",
        Nearness.CANNOT_TELL: f"These images cannot tell which of {one} and {other} is nearer",
        Nearness.UNKNOWN: f"There are too few images to tell which of {one} and {other} is nearer",
    }.get(found.word, f"{one} is nearer than {other} on {like}")
    if found.word in (Nearness.NEARER_LITTLE, Nearness.FARTHER_LITTLE):
        text += ", by less than what matters"
    measure = scores.measures[found.measure]
    shown, p = f"{measure.short} {signed([found.estimate], measure.places)[0]}", ""
    if found.interval:
        shown += f" [{' to '.join(signed(found.interval, measure.places))}]"
        p = f"; p {p_words(found.p_adjusted)} by Bonferroni"
    return f"{text}: {shown}, {found.system} minus {scores.reference}{p}."


def _groups(scores: Scores) -> list[Group]:
    """The `_GROUPS` with at least one number, reduced to the measures that have numbers."""
    known = {name for own in scores.rows.values() for name in own}
    known = {name for name in known if name.removeprefix("best_") in scores.measures}
    recognised = "; ".join(text for name, text in _RECOGNISED.items() if name in known)
    found = [each._replace(names=tuple(name for name in each.names if name in known)) for each in _GROUPS]
    return [each._replace(note=each.note.format(recognised=recognised)) for each in found if each.names]


def _table(scores: Scores, group: Group) -> list[list[Any]]:
    measures = {name: scores.measures[name.removeprefix("best_")] for name in group.names}
    # the rows of `ALWAYS` have only one sample
    rows = {row: own for row, own in scores.rows.items() if row not in ALWAYS or group.title != _BEST}
    cells = [
        [row, *(shown_value(m, own.get(name)) for name, m in measures.items())] for row, own in rows.items()
    ]
    return _with_protocol(scores, [m.head for m in measures.values()], cells)


def _with_protocol(scores: Scores, head: Sequence[str], rows: Sequence[list[Any]]) -> list[list[Any]]:
    """A table, header first, with the protocol as its last column; empty if it has no rows."""
    last = short(scores.protocol.digest)
    return [["", *head, "protocol"], *([*row, last] for row in rows)] if rows else []


def _by_system(scores: Scores, cells: Mapping[tuple[str, str | None, str], TableCell]) -> list[list[Any]]:
    """A table with a row for each measure and a column for each system, then for each difference of two systems.

    The keys of `cells` are a system, the one subtracted from it or None, and a measure.
    """
    columns = dict.fromkeys((one, other) for one, other, _ in cells)
    columns = sorted(columns, key=lambda each: each[1] is not None)
    head = [f"{one} − {other}" if other else one for one, other in columns]
    rows = [
        [scores.measures[name].head, *(cells.get((*column, name), MISSING) for column in columns)]
        for name in dict.fromkeys(name for _, _, name in cells)
    ]
    return _with_protocol(scores, head, rows)


def _difference_table(scores: Scores) -> list[list[Any]]:
    found = {(each.system, scores.reference, each.measure): each for each in scores.differences}
    return _by_system(scores, {key: _difference_cell(scores, each) for key, each in found.items()})


def _distance_table(scores: Scores) -> list[list[Any]]:
    found = {(each.system, each.minus, each.measure): each for each in scores.distances}
    return _by_system(scores, {key: _distance_cell(scores, each) for key, each in found.items()})


def _test_table(scores: Scores) -> list[list[Any]]:
    """Tests of recognised images: a line for each measure and pair of rows."""
    is_clustered = bool(scores.pairs.clusters)
    rows = []
    for each in scores.tests:
        title = f"{scores.measures[each.measure].short}: {each.first}, {each.second}"
        cells = [title, f"{each.only_first} : {each.only_second}", p_text(each.p_adjusted)]
        shares = [TableCell(with_ends(each.difference, each.interval)), p_text(each.p_clustered_adjusted)]
        rows.append(cells + shares * is_clustered)
    head = ["first : second", "p, exact", *(["difference", "p, folders"] if is_clustered else [])]
    return _with_protocol(scores, head, rows)


def with_ends(share: float, interval: Interval | None) -> str:
    shown = signed([share, *(interval or ())], 3)
    return shown[0] + (f" [{', '.join(shown[1:])}]" if interval else "")


def _distance_cell(scores: Scores, found: SetDistance) -> TableCell:
    measure = scores.measures[found.measure]
    values = [found.estimate, *(found.interval or ())]
    shown = [shown_value(measure, each) for each in values]
    if found.minus:
        shown = signed(values, measure.places)
    p = "" if found.p is None else f"; {_whole(f'p {p_text(found.p)}')}"
    return TableCell(shown[0], _whole(" to ".join(shown[1:])) + p)


def _difference_cell(scores: Scores, found: Difference) -> TableCell:
    measure = scores.measures[found.measure]
    below = found.word.value
    if found.interval:
        ends = _whole(" to ".join(signed(found.interval, measure.places)))
        below = f"{ends}; {_whole(f'p {p_text(found.p_adjusted)}')}: {below}"
    is_clear = found.word not in (Nearness.CANNOT_TELL, Nearness.UNKNOWN)
    return TableCell(signed([found.estimate], measure.places)[0], below, is_clear)


def _whole(text: str) -> str:
    # no-break spaces, so that narrow screens do not break the text
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _differ_most(scores: Scores, name: str) -> dict[str, Any]:
    """The images in which a system differs most from the reference by the primary measure; empty for the reference."""
    if name == scores.reference:
        return {}
    primary = scores.protocol.primary
    measure = scores.measures[primary]
    own, other = (scores.columns[each][primary] for each in (name, scores.reference))
    gain = (other - own) if measure.better == "lower" else (own - other)
    order = np.argsort(-gain, kind="stable")
    best, worst = order[:_MOST], order[::-1][:_MOST]
    sides = {
        name: [_shown(scores, name, int(place)) for place in best if gain[place] > 0],
        scores.reference: [_shown(scores, name, int(place)) for place in worst if gain[place] < 0],
    }
    shown = {nearer: images for nearer, images in sides.items() if images}
    return {"name": name, "sides": shown} if shown else {}


def _shown(scores: Scores, name: str, place: int) -> dict[str, Any]:
    """One image for the page: the true image and both colourings as they were compared, with their values."""
    image = list(scores.pairs.truth)[place]
    primary = scores.protocol.primary
    truth = open_pixels(scores.pairs.truth[image], scores.protocol)
    tiles = [("true image", "", _link(truth))]
    systems = {each.name: each for each in scores.pairs.systems}
    for each in (scores.reference, name):
        pixels = open_pixels(systems[each].samples[image][0], scores.protocol, truth)
        value = shown_value(scores.measures[primary], float(scores.columns[each][primary][place]))
        tiles.append((each, value, _link(pixels)))
    return {"image": image, "tiles": tiles}


def _link(pixels: Pixels) -> Markup:
    picture = Pillow.fromarray(to_8_bits(pixels))
    picture.thumbnail((_SIDE, _SIDE), Pillow.Resampling.LANCZOS)
    file = BytesIO()
    picture.save(file, "JPEG", quality=90, subsampling="4:4:4")
    return Markup(f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")
