"""Near-duplicates are found, merely similar images are not, and the validation copy is kept."""

import io
import math
import tracemalloc
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from knowhue.data import checks as module
from knowhue.data.checks import (
    Signatures,
    close_pairs,
    find_near_duplicates,
    signatures,
)
from knowhue.data.drawn import draw

SIDE, LIMIT = 64, 8


@cache
def scenes(count: int = 20, first: int = 0) -> list[Image.Image]:
    """Images larger than they are prepared, as photos are."""
    return [Image.fromarray(draw(first + n, n % 5, 160, class_colour=0.8, seed=1)) for n in range(count)]


def prepared(images) -> np.ndarray:
    fitted = (ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.LANCZOS) for image in images)
    return np.stack([np.asarray(image) for image in fitted])


def jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file).convert("RGB")


def half(image: Image.Image) -> Image.Image:
    return image.resize((80, 80), Image.Resampling.LANCZOS)


COPIES = {
    "re-encoded": jpeg,
    "resized": half,
    "cropped 3 %": lambda image: image.crop((2, 2, 157, 157)),
    "mirrored": ImageOps.mirror,
    "brightened 10 %": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "mirrored, resized, re-encoded": lambda image: jpeg(half(ImageOps.mirror(image))),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found(kind):
    originals = scenes()
    found = signatures([prepared(originals), prepared(map(COPIES[kind], originals))])
    pairs = {(first, copy) for copy, first in find_near_duplicates(found, LIMIT).items()}
    assert pairs <= {(n, n + 20) for n in range(20)}
    assert len(pairs) >= (19 if kind == "cropped 3 %" else 20)


def test_drawn_images_are_no_copies_of_each_other():
    # a scene is the same at any size
    images = np.stack([draw(n, n % 5, 32, class_colour=0.8, seed=0) for n in range(1500)])
    assert find_near_duplicates(signatures([images]), LIMIT) == {}


def test_one_layout_in_two_colours_is_two_images():
    images = prepared(scenes(4))
    recoloured = images[..., [2, 0, 1]]
    found = signatures([images, recoloured])
    same_layout = found._replace(upright=np.tile(found.upright[:4], 2))
    assert len(close_pairs(same_layout.upright, same_layout.upright, LIMIT)[0]) >= 4
    assert find_near_duplicates(same_layout, LIMIT) == {}


def test_flat_images_are_told_apart_by_colour():
    colours = [(200, 30, 30), (30, 30, 200), (201, 30, 30)]
    flat = np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in colours])
    assert find_near_duplicates(signatures([flat]), LIMIT) == {2: 0}


def test_mirror_hash_is_the_hash_of_the_mirror_image():
    images = prepared(scenes(8))
    mirrored = signatures([np.ascontiguousarray(images[:, :, ::-1])])
    assert signatures([images]).mirrored.tolist() == mirrored.upright.tolist()


@pytest.mark.parametrize("side", [16, 33, 96])
def test_blocks_do_not_matter(side):
    images = np.stack([draw(n, n % 5, side, class_colour=0.8, seed=0) for n in range(5)])
    whole, parts = signatures([images]), signatures([images[:2], images[2:]])
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert whole.thumbs.shape == (5, 8, 8, 3)


def test_thumbnail_is_the_mean_of_its_pixels():
    image = draw(0, 0, 64, class_colour=0.8, seed=0)
    means = image.reshape(8, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(signatures([image[None]]).thumbs[0] - means).max() <= 0.51


WAYS = [(limit, few) for limit in range(17) for few in range(1, 5) if math.comb(limit + few, few) < 500]


@given(st.sampled_from(WAYS), st.integers(0, 1000))
def test_banded_search_is_the_exhaustive_one(way, seed):
    limit, few = way
    rng = np.random.default_rng(seed)
    upright = rng.integers(0, 2**64, 30, dtype=np.uint64)
    upright[10:20] = flipped(rng, upright[rng.permutation(10)], 6)
    mirrored = flipped(rng, upright[rng.permutation(30)], 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MORE_BANDS", (0,) * (few - 1))
        found = close_pairs(upright, mirrored, limit)
    close = [np.bitwise_count(upright[:, None] ^ other) <= limit for other in (upright, mirrored)]
    assert found[0].tolist() == np.argwhere(np.triu(close[0], 1)).tolist()
    assert found[1].tolist() == np.argwhere(close[1] & ~np.eye(30, dtype=bool)).tolist()


def flipped(rng, hashes: np.ndarray, most: int) -> np.ndarray:
    """Hashes with so many bits flipped at most, so that some are close."""
    for _ in range(most):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, len(hashes), dtype=np.uint64))
    return hashes


def test_work_grows_little_faster_than_the_number_of_images(monkeypatch):
    """Eight times as many images take less than twenty times the work; with a single band it would be 64 times."""
    upright, mirrored = np.random.default_rng(0).integers(0, 2**64, (2, 2**16), dtype=np.uint64)
    compared: list[int] = []
    sort = module._group_by_mask

    def counting(hashes, mask):
        order, counts = sort(hashes, mask)
        compared.append(
            int(counts.sum()) + 12 * len(hashes)
        )  # sorting a hash takes as long as 12 comparisons
        return order, counts

    monkeypatch.setattr(module, "_group_by_mask", counting)
    work = []
    for count in (2**13, 2**16):
        compared.clear()
        module.close_pairs(upright[:count], mirrored[:count], LIMIT)
        work.append(sum(compared))
    assert work[1] < 20 * work[0]


def test_memory_is_bounded_and_blocks_of_the_search_do_not_matter(monkeypatch):
    found = signatures([prepared(scenes(10)), prepared(scenes(10))])
    whole = find_near_duplicates(found, 16)
    monkeypatch.setattr(module, "_CELLS", 3)
    assert find_near_duplicates(found, 16) == whole


def alike(count: int) -> Signatures:
    """The signatures of one image, `count` times."""
    return Signatures(*(np.repeat(each, count, axis=0) for each in signatures([prepared(scenes(1))])))


def test_first_of_like_images_is_the_original():
    assert find_near_duplicates(alike(3), LIMIT) == {1: 0, 2: 0}


def test_only_images_that_stay_make_others_go():
    # each is as near to the next as copies are, but the first and the last are not
    colours = np.array([(120, 100, 100), (110, 110, 100), (100, 120, 100)], np.uint8)
    flat = signatures([np.broadcast_to(colours[:, None, None], (3, SIDE, SIDE, 3))])
    assert find_near_duplicates(flat, LIMIT) == {1: 0}


@given(st.integers(0, 1000))
def test_grouped_search_is_the_one_that_compares_every_pair(seed):
    rng = np.random.default_rng(seed)
    few = rng.integers(0, 2**64, 4, dtype=np.uint64)
    upright = np.concatenate([few[rng.integers(0, 4, 15)], flipped(rng, few[rng.integers(0, 4, 15)], 6)])
    mirrored = np.where(rng.random(30) < 0.5, rng.permutation(upright), flipped(rng, upright, 5))
    found = Signatures(
        upright, mirrored, rng.integers(0, 2, (30, 1, 1, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8) * 90
    )

    # for all pairs of an image and a possible copy of it
    one, other = found.thumbs[:, None].astype(float), found.thumbs[None].astype(float)
    brightness = one.mean((2, 3, 4), keepdims=True), other.mean((2, 3, 4), keepdims=True)
    gain = np.clip((brightness[0] + 1) / (brightness[1] + 1), 1 / 1.2, 1.2)
    has_colours = np.abs(one - gain * other).mean((2, 3, 4)) < module.MAX_COLOUR_DIFFERENCE
    bits = [np.bitwise_count(upright[:, None] ^ hashes) for hashes in (upright, mirrored)]
    is_copy = has_colours & (np.minimum(*bits) <= LIMIT)
    copies: dict[int, int] = {}
    for copy in range(30):
        originals = [first for first in range(copy) if first not in copies and is_copy[first, copy]]
        copies |= {copy: originals[0]} if originals else {}
    assert find_near_duplicates(found, LIMIT) == copies
    known = [
        first for first in (next((n for n in range(9) if is_copy[n, copy]), None) for copy in range(9, 30))
    ]
    assert find_near_duplicates(found, LIMIT, known=9) == {
        copy: first for copy, first in enumerate(known, 9) if first is not None
    }


def test_memory_grows_with_images_of_one_layout_not_with_their_pairs():
    found = alike(4000)
    tracemalloc.start()
    try:
        copies = find_near_duplicates(found, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert copies == dict.fromkeys(range(1, 4000), 0)
    assert peak < 4000 * 2000  # bytes per image; all pairs would take 32,000


def test_nothing_has_no_duplicates():
    assert find_near_duplicates(signatures([]), LIMIT) == {}
