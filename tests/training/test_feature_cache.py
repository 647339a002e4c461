"""Cached features are the fresh ones, and stale ones are never read."""

import numpy as np
import pytest
import torch

from knowhue.color import rgb_to_lab
from knowhue.data.loaders import to_rgb
from knowhue.errors import RunError
from knowhue.runs import read_json
from knowhue.training.feature_cache import cache_features
from knowhue.training.train import _session


@pytest.fixture
def make_cache(tiny, make_work):
    def make(name="study", pictures=None, **changes):
        config = tiny(colour__decoder="unet", **changes)
        work = make_work(config, name, **(pictures or {}))
        model = _session(work, config).model.eval()
        return cache_features(model, work.prepared, work.root / "features", work.engine), model, work

    return make


def fresh(model, work, positions, mirrored):
    rgb = work.prepared.rgb[positions]
    rgb = np.stack([p[:, ::-1] if m else p for p, m in zip(rgb, mirrored, strict=True)])
    with torch.no_grad(), work.engine.autocast():
        return model.features(rgb_to_lab(to_rgb(rgb, work.engine.device))[0])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet18"])
def test_cached_is_fresh_bit_for_bit(make_cache, encoder, precision, mirrored):
    name = str(precision).removeprefix("torch.")
    cache, model, work = make_cache(encoder__name=encoder, training__precision=name)
    everything, upright = np.arange(16), np.full(16, mirrored)
    read = cache.read(everything, upright)
    computed = fresh(model, work, everything, upright)
    assert [t.dtype for t in read] == [t.dtype for t in computed]
    assert precision in {t.dtype for t in read}
    assert all(torch.equal(a, b) for a, b in zip(read, computed, strict=True))


def test_any_mixture_of_pictures_can_be_read(make_cache):
    # Another batch size sums in another order: equal to float32's last bits, no longer bit for bit.
    cache, model, work = make_cache()
    positions, mirrored = np.array([9, 2, 2, 13]), np.array([True, False, True, True])
    pairs = zip(cache.read(positions, mirrored), fresh(model, work, positions, mirrored), strict=True)
    for read, computed in pairs:
        torch.testing.assert_close(read, computed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"training__precision": "bfloat16"},
        {"encoder__name": "resnet18"},
        {"pictures": {"seed": 1}},
        {"pictures": {"count": 12}},
    ],
)
def test_stale_cache_is_not_reused(make_cache, change):
    make_cache()
    cache, model, work = make_cache(**change)
    everything = np.arange(len(work.prepared.rgb))
    upright = np.zeros(len(everything), dtype=bool)
    pairs = zip(cache.read(everything, upright), fresh(model, work, everything, upright), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert len(list((work.root / "features").iterdir())) == 2


def test_cache_is_computed_once(make_cache, monkeypatch):
    _, _, work = make_cache()
    monkeypatch.setattr("knowhue.training.feature_cache._fill", None)
    make_cache()
    (home,) = (work.root / "features").iterdir()
    assert len(list(home.glob("tap-*.npy"))) == 5
    for mark in home.glob("tap-*.json"):
        assert read_json(mark) == list(np.load(mark.with_suffix(".npy"), mmap_mode="r").shape)


def test_torn_cache_is_computed_again(make_cache):
    _, _, work = make_cache()
    (home,) = (work.root / "features").iterdir()
    (home / "tap-2.json").unlink()
    (home / "tap-2.npy").write_bytes(b"half of it")
    cache, model, work = make_cache()
    everything, upright = np.arange(16), np.zeros(16, dtype=bool)
    pairs = zip(cache.read(everything, upright), fresh(model, work, everything, upright), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_unwritable_folder_is_named(make_cache, tmp_path):
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "features").write_text("a file where the folder should go")
    with pytest.raises(RunError, match=r"Cannot write .*training\.cache_gib=0"):
        make_cache("blocked")
