"""A comparison's folder of runs that were never made."""

import json
from pathlib import Path

import numpy as np

from knowhue.presets import METHODS
from knowhue.runs import FORMAT

ERRORS = {
    "l1": (11.0, 12.0, 13.0),
    "gan": (12.0, 12.5, 14.0),
    "palette-ab": (17.0, 16.0, None),
    "pix2pix": (15.0, 15.5, 16.0),
}


def write_comparison(folder: Path) -> Path:
    """Palette diverged with seed 2, pix2pix was never trained with seed 0; equal wall-clock has not begun."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()

    def images(*shape):
        return generator.integers(0, 255, (*shape, 8, 8, 3), dtype=np.uint8)

    np.savez(
        folder / "images" / "samples.npz",
        index=np.arange(4),
        label=np.array([0, 0, 1, 1]),
        gray=images(4),
        truth=images(4),
    )
    runs = []
    for method, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            state = (
                "diverged" if error is None else "missing" if (method, seed) == ("pix2pix", 0) else "finished"
            )
            home = folder / method / f"seed-{seed}"
            home.mkdir(parents=True)
            drawn = {"drawn": images(3, 4)} if method == "palette-ab" else {}
            np.savez(home / "samples.npz", rgb=images(4), **drawn)
            scores = {"ab_l1": error, "ciede2000": error, "fd_lite0": 10.0, "fid": None, "recognition": 0.5}
            cost = {
                "train_s": 30.0 + seed,
                "images_seen": 100,
                "train_s_per_image": 0.3,
                "predict_s_per_image": 0.01,
                "parameters": 2_000_000,
            }
            runs.append(
                {"method": method, "regime": "images", "seed": seed, "state": state, "scores": scores, "cost": cost,
                 "samples": f"{method}/seed-{seed}/samples.npz"}
            )  # fmt: skip
    asked = {
        "name": "test", "version": "0", "created": "2026-01-01T00:00:00", "hash": "01234567",
        "format": FORMAT, "reference": "gan",
        "seeds": [0, 1, 2],
        "methods": {name: {"title": METHODS[name].title, "source": "<somebody & others>"} for name in ERRORS},
        "regimes": {"images": {"title": "equal images", "epochs": {name: [1, 2] for name in ERRORS}}},
        "metrics": {name: {"better": "lower"} for name in ("ab_l1", "ciede2000", "fd_lite0", "fid")}
        | {"recognition": {"better": "higher", "unit": "share"}},
        "runs": runs, "baselines": {"gray": {"ab_l1": 14.0}, "real": {"fd_lite0": 3.0}},
    }  # fmt: skip
    (folder / "comparison.json").write_text(json.dumps(asked))
    return folder
