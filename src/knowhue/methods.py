"""METHODS: ways to colour, ours and earlier ones, as edits of one configuration."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Method(NamedTuple):
    """A way to colour.

    Attributes:
        title: for tables.
        source: whose it is.
        edits: what makes it of any configuration.
    """

    title: str
    source: str
    edits: Mapping[str, Any]


def _on_encoder(title: str, source: str, **colour: Any) -> Method:
    return Method(title, source, {"tasks": {"names": ("colour",)}, "colour": colour})


def _pix2pix(width: int, **training: Any) -> Method:
    """Cross-entropy, L1 x 100 and a rate of 2e-4 for both players, as in the paper."""
    rates = {"learning_rate": 2e-4, "discriminator_learning_rate": 2e-4}
    colour = {"method": "pix2pix", "gan_loss": "bce", "l1_weight": 100.0, "pix2pix": {"width": width}}
    return Method(
        "pix2pix, from scratch",
        "Isola, Zhu, Zhou and Efros 2017",
        {
            "tasks": {"names": ("colour",)},
            "colour": colour,
            "training": {"finetune": rates, "weight_decay": 0.0, **training},
        },
    )


def _palette(space: str, rate: float, **settings: Any) -> Method:
    space_name = {"rgb": "RGB", "ab": "a*b*"}[space]
    return Method(
        f"Palette in {space_name}, from scratch",
        "Saharia et al. 2022" + (", in another space" if space == "ab" else ""),
        {
            "tasks": {"names": ("colour",)},
            "colour": {"method": "palette", "palette": {"space": space, **settings}},
            "training": {"finetune": {"rate": rate}},
        },
    )


_PALETTE_PAPER = {  # the network is that of Dhariwal and Nichol 2021 for 256 pixels
    "width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attentive": 3, "schedule": "linear",
    "steps": 2000, "sampler": "ancestral", "sample_steps": 1000, "average_decay": 0.9999,
}  # fmt: skip

METHODS: dict[str, Method] = {
    "l1": _on_encoder("Feed-forward, L1", "regression", method="feedforward", loss="l1"),
    "l2": _on_encoder("Feed-forward, L2", "regression", method="feedforward", loss="l2"),
    "classification": _on_encoder(
        "Feed-forward, 313 colours",
        "Zhang, Isola and Efros 2016",
        method="feedforward",
        loss="classification",
    ),
    "gan": _on_encoder("GAN, the poster's", "Anjou and Kolodziejczyk; Isola et al. 2017", method="gan"),
    "unet": _on_encoder("GAN with skips from the encoder", "ours; Ronneberger et al. 2015", method="unet"),
    "pix2pix": _pix2pix(32),
    "palette-rgb": _palette("rgb", 1e-3),
    "palette-ab": _palette("ab", 1e-3),
}
"""Each in a size that trains in minutes on a CPU at 64 pixels."""

PAPER_METHODS: dict[str, Method] = {
    "pix2pix-paper": _pix2pix(64, batch_size=4),
    "palette-rgb-paper": _palette("rgb", 1e-4, **_PALETTE_PAPER),
    "palette-ab-paper": _palette("ab", 1e-4, **_PALETTE_PAPER),
}
"""The same in the sizes and at the rates of their papers, for GPUs and images of 256 pixels."""
