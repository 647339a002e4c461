"""The set-up as a drawing: one shared encoder, two heads, a discriminator, with the names and numbers of this study."""

from typing import TYPE_CHECKING, Any

from knowhue.report.study import Study
from knowhue.report.style import INK, MULTI, MUTED, RULE, SHADE, SINGLE, SMALL, bare, panels
from knowhue.report.text import plain, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FROM_SCRATCH = {"pix2pix": "U-Net from scratch", "palette": "diffusion"}
"""Methods that have no encoder, and what their networks are."""
_ARROWS = (("image", "encoder"), ("encoder", "colour"), ("encoder", "class"), ("colour", "judge"))


def setup(study: Study) -> "dict[str, Figure]":
    """Draw what feeds what; blue is trained by single-task, orange by multi-task as well."""
    figure, axes = panels(5.0, 2.0)
    ax = axes[0, 0]
    bare(ax)
    ax.set(xlim=(0, 100), ylim=(0, 100))
    drawn = {}
    for name, (x, y, *lines) in _boxes(study).items():
        edge = {"encoder": MULTI, "colour": SINGLE, "class": SINGLE}.get(name, RULE)
        box = {"boxstyle": "round,pad=0.5", "facecolor": SHADE, "edgecolor": edge, "linewidth": 1}
        drawn[name] = ax.text(
            x,
            y,
            "\n".join(lines),
            ha="center",
            va="center",
            color=INK,
            fontsize=SMALL - 1.5,
            linespacing=1.4,
            bbox=box,
        )
    for start, end in _ARROWS:
        arrow = {"arrowstyle": "-|>", "color": MUTED, "patchA": drawn[start].get_bbox_patch(),
                 "patchB": drawn[end].get_bbox_patch()}  # fmt: skip
        ax.annotate("", drawn[end].get_position(), drawn[start].get_position(), arrowprops=arrow, zorder=0)
    return {"setup": figure}


def _boxes(study: Study) -> dict[str, tuple[Any, ...]]:
    """Return the centre and the lines of each box."""
    say = study.config
    method, loss = say("colour", "method"), str(say("colour", "loss") or "l1")
    frozen, tuned = (say("training", phase, "epochs") for phase in ("heads", "finetune"))
    start = "random weights" if say("encoder", "weights") == "none" else "pretrained"
    schedule = f"frozen {plural(frozen, 'epoch')}, then tuned {plain(tuned)}"
    encoder = ("Shared encoder", str(say("encoder", "name") or "–"), start, schedule)
    if method in FROM_SCRATCH:
        # with nothing to freeze, they train for the epochs of both phases in one
        encoder = ("No encoder", "the gray image alone", plural((frozen or 0) + (tuned or 0), "epoch"))
    transposed = say("colour", "decoder") == "transposed"
    # `auto` is transposed convolutions for `gan` alone
    transposed |= say("colour", "decoder") in (None, "auto") and method == "gan"
    network = "transposed convolutions" if transposed else "U-Net on the encoder"
    error = (
        "313 colours" if loss == "classification" else f"{loss.upper()} × {plain(say('colour', 'l1_weight'))}"
    )
    colour = (FROM_SCRATCH.get(method, network), error)
    if method == "palette":
        colour = (f"diffusion in {say('colour', 'palette', 'space')}", "predicts the noise")
    weight = plain(say("colour", "adversarial_weight"))
    judge = ("PatchGAN over L*a*b*", f"{str(say('colour', 'gan_loss') or '–').upper()} × {weight}")
    if method in ("feedforward", "palette"):
        judge = ("none",)
    size = plain(say("images", "size_px"))
    return {
        "image": (6, 50, "Gray image", "L*", f"{size} × {size} px"),
        "encoder": (31, 50, *encoder),
        "colour": (62, 78, "Colour head: a*b*", *colour),
        "class": (
            62,
            22,
            f"Class head: {len(study.classes)} classes",
            str(say("class", "head") or "linear"),
            "cross-entropy",
        ),
        "judge": (90, 78, "Discriminator", *judge),
    }
