"""Test images that tuning has seen are detected at any size and from every kind of source."""

import numpy as np
import pytest
from PIL import Image

from knowhue.config import Images
from knowhue.data.drawn import draw
from knowhue.data.prepare import count_seen, kept_rows, prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of noise images, all different."""
    root, generator = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for i in range(10):
            Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def rules(path="", **changes):
    usual = {"source": "folder", "path": str(path), "size_px": 32, "min_per_class": 1, "test_share": 0.3}
    return Images.model_validate(usual | {"duplicate_distance_bits": 0} | changes)


def both(mine, tuned, home):
    prepare(mine, home / "report" / "images")
    prepare(tuned, home / "tuning" / "images")
    return home / "report" / "images", home / "tuning" / "images"


def paths(folder, *splits):
    return {row["path"] for row in kept_rows(folder) if row["split"] in splits}


@pytest.mark.parametrize("size_px", [32, 48])
@pytest.mark.parametrize("source", ["folder", "drawn"])
def test_images_that_tuning_saw_are_counted_at_any_size(folder, tmp_path, source, size_px):
    kind = {"source": source, "path": str(folder) if source == "folder" else "", "drawn_count": 40}
    mine, tuned = both(rules(**kind, split_seed=1, size_px=size_px), rules(**kind), tmp_path)
    again = paths(mine, "test") & paths(tuned, "train", "validation")
    assert again
    assert count_seen(mine, tuned, 0) == len(again)


@pytest.mark.parametrize("source", ["folder", "drawn"])
def test_the_same_split_at_another_size_shares_nothing(folder, tmp_path, source):
    kind = {"source": source, "path": str(folder) if source == "folder" else "", "drawn_count": 40}
    mine, tuned = both(rules(**kind, size_px=48), rules(**kind), tmp_path)
    assert paths(mine, "test") == paths(tuned, "test")
    assert count_seen(mine, tuned, 8) == 0


def test_scenes_of_another_seed_are_other_images_and_other_colours_are_not(tmp_path):
    drawn = {"source": "drawn", "drawn_count": 40}
    mine, tuned = both(rules(**drawn, drawn_seed=1), rules(**drawn), tmp_path / "seed")
    assert count_seen(mine, tuned, 8) == 0
    mine, tuned = both(rules(**drawn, split_seed=1, class_colour=0.1), rules(**drawn), tmp_path / "colour")
    assert count_seen(mine, tuned, 0) == len(paths(mine, "test") & paths(tuned, "train", "validation")) > 0


def test_near_duplicates_of_what_tuning_saw_are_counted_at_another_size(tmp_path):
    """The same images saved again as JPEG: other pixels, other names."""
    for i in range(20):
        image = Image.fromarray(draw(i, i % 2, 64, 0.8, 0))
        for kind, name in (("png", f"{i:02d}.png"), ("jpg", f"{(7 * i) % 20:02d}-again.jpg")):
            home = tmp_path / kind / "ab"[i % 2]
            home.mkdir(parents=True, exist_ok=True)
            image.save(home / name, quality=90)
    near = {"duplicate_distance_bits": 8}
    again, first = (rules(tmp_path / kind, **near, size_px=side) for kind, side in (("jpg", 48), ("png", 32)))
    mine, tuned = both(again, first, tmp_path)
    assert count_seen(mine, tuned, 0) == 0
    assert count_seen(mine, tuned, 8) > 0
