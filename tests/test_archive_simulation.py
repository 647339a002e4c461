"""The simulated archive: every image once, and totals that agree with a calculation by hand."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # as Python does for a script
        yield runpy.run_path(str(FOLDER / "archive_simulation.py"))
        sys.modules.pop("colorize_folder", None)


@pytest.fixture(scope="module")
def certain(script):
    """An archive of 1,003 images in seven shards, without randomness."""
    return script["Archive"](
        1003, 7, 1, image_s=0.5, start_s=3, shard_spread=0, slow_share=0, losses_an_hour=0, listing_s=20
    )


@pytest.mark.parametrize(("engine", "starts"), [("slurm", 7), ("ray", 1)])
def test_one_worker_is_what_can_be_added_up(script, certain, engine, starts):
    found = script["simulate"](certain, script["ENGINES"][engine])
    begun = 7 / script["ENGINES"][engine].starts_per_s
    assert found == (pytest.approx(20 + begun + starts * 3 + 1003 * 0.5), 0, 0)


def test_workers_share_the_work(script, certain):
    engine = script["ENGINES"]["ray"]._replace(starts_per_s=1e9)
    found = script["simulate"](certain._replace(workers=7), engine)
    assert found.wall_s == pytest.approx(20 + 3 + 144 * 0.5)  # the first two shards have one image more
    assert found.efficiency(certain._replace(workers=7)) == pytest.approx(1003 * 0.5 / (7 * found.wall_s))


@pytest.mark.parametrize("engine", ["slurm", "ray"])
def test_each_image_is_done_once_however_many_workers_are_lost(script, certain, engine):
    archive = certain._replace(workers=3, losses_an_hour=60, shard_spread=0.5, slow_share=0.5)
    parts = []
    found = script["simulate"](archive, script["ENGINES"][engine], 1, lambda *part: parts.append(part))
    assert found.losses > 3
    assert len(parts) == archive.shards + found.losses
    done = sorted((shard, image) for shard, first, end in parts for image in range(first, end))
    assert done == [(shard, image) for shard in range(7) for image in range(144 if shard < 2 else 143)]


def test_a_lost_worker_costs_its_start_and_until_it_is_noticed(script, certain, monkeypatch):
    engine = script["ENGINES"]["ray"]._replace(starts_per_s=1e9, noticed_s=20)
    archive = certain._replace(images=100, shards=1, losses_an_hour=1, replaced_s=7)
    never = float("inf")
    moments = iter([10.2, never])
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Drawn(moments))
    found = script["simulate"](archive, engine)
    # 3 s of start, 14 images and a part of one; 20 s later the 86 others
    assert found == (pytest.approx(20 + 10.2 + 20 + 3 + 86 * 0.5), 1, 1)


class Drawn:
    """A generator whose losses come at given times, and which is otherwise constant."""

    def __init__(self, moments):
        self._moments = moments

    def lognormal(self, mean, deviation, count):
        return np.ones(count)

    def random(self, count):
        return np.ones(count)

    def exponential(self, mean):
        return next(self._moments)


def test_a_store_that_answers_slowly_sets_the_pace(script, certain):
    slow = certain._replace(request_s=3, refused=0.5, retry_s=1, in_flight=4)
    assert slow.waits_s == 1
    found = script["simulate"](slow, script["ENGINES"]["ray"])
    assert found.wall_s == pytest.approx(20 + 0.007 + 3 + 1003)


def test_the_costs_of_a_real_worker_are_of_starting_and_of_images(script, monkeypatch, tmp_path):
    measure = script["measure"]
    monkeypatch.setitem(measure.__globals__, "make_images", lambda folder, count, width, height: None)
    monkeypatch.setitem(
        measure.__globals__, "_colour", lambda source, out, core, fast: 2 + 0.1 * int(source.name)
    )
    asked = script["_read_arguments"](["measure", "--counts", "10", "30"])
    assert measure(asked, tmp_path) == pytest.approx((2, 0.1))
