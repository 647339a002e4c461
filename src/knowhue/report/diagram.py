"""The set-up as a drawing: one shared encoder, two heads, a discriminator, and which arm trains what."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knowhue.report.palette import INK, MULTI, MUTED, RULE, SHADE, SINGLE, SMALL, TEXT, bare, panels
from knowhue.report.study import Study, Table
from knowhue.report.text import plain, plural, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ARMS = (
    ("Single-task classification", SINGLE, "encoder + class head"),
    ("Single-task colouring", SINGLE, "encoder + colour head, its discriminator if any"),
    ("Multi-task", MULTI, "encoder + both heads, the discriminator if any"),
)


FROM_SCRATCH = {"pix2pix": "U-Net from scratch", "palette": "diffusion"}
"""Methods that have no encoder, and what their networks are."""


@dataclass(frozen=True)
class Box:
    """A network (boxed) or a value (`plain`) around its centre, in hundredths of the width."""

    x: float
    y: float
    width: float
    title: str
    lines: tuple[str, ...]
    plain: bool = False


def setup(study: Study) -> "Figure":
    """Draw the set-up with the names and numbers of this study's settings."""
    figure, axes = panels(9.2, 3.6)
    ax = axes[0, 0]
    bare(ax)
    ax.set(xlim=(-0.3, 100.3), ylim=(0, 39), aspect="auto")
    for box in _boxes(study):
        _draw(ax, box)
    _arrows(ax)
    _arms(ax)
    return figure


def setup_table(study: Study) -> Table:
    """Return the settings that the drawing names."""
    keys = (
        ("encoder", "name"), ("encoder", "weights"), ("images", "size_px"), ("training", "heads", "epochs"),
        ("training", "finetune", "epochs"), ("colour", "method"), ("colour", "loss"),
        ("colour", "decoder"), ("colour", "gan_loss"),
        ("colour", "l1_weight"), ("colour", "adversarial_weight"),
        ("class", "head"), ("tasks", "weighting"), ("tasks", "weights", "colour"), ("tasks", "weights", "class"),
    )  # fmt: skip
    return [["setting", "value"], *([".".join(key), study.config(*key)] for key in keys)]


def _boxes(study: Study) -> list[Box]:
    say = study.config
    pooled = str(say("class", "head") or "linear")
    size = plain(say("images", "size_px"))
    return [
        Box(6, 23, 12, "Gray image", ("L*", f"{size} × {size} px"), plain=True),
        _base(study),
        Box(50, 32, 18, "Colour head", _head_lines(study)),
        Box(50, 14, 18, "Class head", (f"{pooled}, same features", "cross-entropy")),
        Box(71, 32, 12, "a*b* + L*", ("L* is given,", "never predicted"), plain=True),
        Box(91, 32, 18, "Discriminator", _judge_lines(study)),
        Box(75, 14, 22, f"{len(study.classes)} classes", _class_lines(study), plain=True),
    ]


def _base(study: Study) -> Box:
    say = study.config
    frozen, tuned = (say("training", phase, "epochs") for phase in ("heads", "finetune"))
    if say("colour", "method") in FROM_SCRATCH:
        return Box(
            26, 23, 20, "No encoder", ("the gray image alone", plural((frozen or 0) + (tuned or 0), "epoch"))
        )
    start = "random weights" if say("encoder", "weights") == "none" else "pretrained"
    schedule = f"frozen {plural(frozen, 'epoch')}, then tuned {plain(tuned)}"
    return Box(26, 23, 20, "Shared encoder", (str(say("encoder", "name") or "–"), start, schedule))


def _head_lines(study: Study) -> tuple[str, str]:
    """Return what the colour head is, and what it learns by."""
    say = study.config
    method, loss = say("colour", "method"), str(say("colour", "loss") or "l1")
    if method == "palette":
        return f"diffusion in {say('colour', 'palette', 'space')}", "noise told apart"
    posters = say("colour", "decoder") in (None, "auto") and method == "gan"
    transposed = posters or say("colour", "decoder") == "transposed"
    network = "transposed convolutions" if transposed else "U-Net on the encoder"
    error = (
        "313 colours" if loss == "classification" else f"{loss.upper()} × {plain(say('colour', 'l1_weight'))}"
    )
    return FROM_SCRATCH.get(method, network), error


def _judge_lines(study: Study) -> tuple[str, ...]:
    say = study.config
    if say("colour", "method") in ("feedforward", "palette"):
        return ("none",)
    gan = f"{str(say('colour', 'gan_loss') or '–').upper()} × {plain(say('colour', 'adversarial_weight'))}"
    return ("PatchGAN over L*a*b*", gan)


def _class_lines(study: Study) -> tuple[str, ...]:
    """Return the names of the classes on two lines, or the first few of many."""
    names = [spaced(name) for name in study.classes]
    shown = names if len(names) <= 6 else [*names[:4], f"and {len(names) - 4} more"]
    half = (len(shown) + 1) // 2
    first, rest = ", ".join(shown[:half]), ", ".join(shown[half:])
    return (f"{first},", rest) if rest else (first,)


def _draw(ax: "Axes", box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    height = 5.2 + 2.9 * len(box.lines)
    if not box.plain:
        corner = (box.x - box.width / 2, box.y - height / 2)
        style = {"boxstyle": "round,pad=0,rounding_size=0.8", "linewidth": 1}
        ax.add_patch(FancyBboxPatch(corner, box.width, height, facecolor=SHADE, edgecolor=RULE, **style))
    top = box.y + 1.45 * len(box.lines)
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    ax.text(box.x, top, box.title, fontsize=TEXT, fontweight="bold", color=INK, **centred)
    for place, line in enumerate(box.lines, 1):
        ax.text(box.x, top - 2.9 * place, line, fontsize=SMALL, color=MUTED, **centred)


def _arrows(ax: "Axes") -> None:
    ways = (
        ((11.6, 23), (15.6, 23)), ((36.5, 25), (40.5, 31)), ((36.5, 21), (40.5, 15)),
        ((59.6, 32), (64.4, 32)), ((77, 32), (81.5, 32)), ((59.6, 14), (64.4, 14)),
    )  # fmt: skip
    arrow = {
        "arrowstyle": "-|>",
        "color": MUTED,
        "linewidth": 1.1,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 9,
    }
    for start, end in ways:
        ax.annotate("", end, start, arrowprops=arrow)
    ax.annotate("", (91, 26.3), (91, 22.5), arrowprops=arrow)
    ax.text(91, 20.9, "true colours", ha="center", va="center", fontsize=SMALL, color=MUTED)


def _arms(ax: "Axes") -> None:
    ax.plot([0, 100], [6.4, 6.4], color=RULE, linewidth=0.8)
    for x, (name, colour, parts) in zip((1, 34, 69), _ARMS, strict=True):
        ax.plot([x], [3.5], "o", color=colour, markersize=6)
        ax.text(x + 1.6, 3.5, name, va="center", fontsize=TEXT, fontweight="bold", color=colour)
        ax.text(x + 1.6, 0.6, parts, va="center", fontsize=SMALL, color=MUTED)
