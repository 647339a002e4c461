"""Cached features equal fresh ones, and outdated ones are never used."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from knowhue.color import rgb_to_lab
from knowhue.data.loaders import to_rgb
from knowhue.errors import RunError
from knowhue.storage import allocate, file_digest, read_json
from knowhue.training import feature_cache
from knowhue.training.feature_cache import cache_features
from knowhue.training.run import make_networks, run_head


@pytest.fixture
def make_cache(make_model):
    def make(name="study", images=None, **changes):
        model, work = make_model(name, images, **changes)
        return cached(model, work), model, work

    return make


def cached(model, work, positions=None):
    positions = np.arange(len(work.prepared.rgb)) if positions is None else positions
    return cache_features(model, work, positions, "here")


@pytest.fixture
def make_model(tiny, make_work):
    def make(name="study", images=None, **changes):
        config = tiny(**({"colour__method": "unet"} | changes))
        work = make_work(config, name, **(images or {}))
        return make_networks(work, config).model.eval(), work

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


@pytest.mark.parametrize("held", [np.arange(16), np.array([1, 2, 9, 13])])
def test_any_mixture_of_the_images_held_can_be_read(make_model, held):
    # Another batch size sums in another order: equal to float32's last bits, no longer bit for bit.
    model, work = make_model()
    cache = cached(model, work, held)
    positions, mirrored = np.array([9, 2, 2, 13]), np.array([True, False, True, True])
    pairs = zip(cache.read(positions, mirrored), fresh(model, work, positions, mirrored), strict=True)
    for read, computed in pairs:
        torch.testing.assert_close(read, computed, rtol=1e-5, atol=1e-5)
    for other in {0, 10, 15} - set(held.tolist()):
        with pytest.raises(AssertionError):
            cache.read(np.array([2, other]), mirrored[:2])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"training__precision": "bfloat16"},
        {"encoder__name": "resnet18"},
        {"images": {"seed": 1}},
        {"images": {"count": 12}},
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


def test_what_another_machine_computed_is_not_taken(make_model):
    """A block that restarts with other arithmetic must not use features of the old arithmetic."""
    model, work = make_model("study", None)
    folder, everything = work.root / "features", np.arange(len(work.prepared.rgb))
    for step in ("here", "there", "here"):
        cache_features(model, work, everything, step)
    assert len(list(folder.iterdir())) == 2


def test_cache_is_computed_once(make_cache, monkeypatch):
    _, _, work = make_cache()
    monkeypatch.setattr("knowhue.training.feature_cache._fill", None)
    make_cache()
    (home,) = (work.root / "features").iterdir()
    assert sorted(path.name for path in home.iterdir()) == [
        f"tap-{n}.{suffix}" for n in range(5) for suffix in ("json", "npy")
    ]
    for mark in home.glob("tap-*.json"):
        assert read_json(mark) == {"content": file_digest(mark.with_suffix(".npy"))}


def assert_fresh(cache, model, work):
    everything, upright = np.arange(16), np.zeros(16, dtype=bool)
    pairs = zip(cache.read(everything, upright), fresh(model, work, everything, upright), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "flipped": flip,
    "other": lambda path: path.write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["tap-2.npy", "tap-2.json"])
def test_damaged_cache_is_computed_again(make_cache, name, damage):
    _, _, work = make_cache()
    (home,) = (work.root / "features").iterdir()
    DAMAGES[damage](home / name)
    assert_fresh(*make_cache())


def test_what_a_killed_process_left_is_not_taken_for_a_cache(make_cache, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("knowhue.training.feature_cache.file_digest", kill)  # filled, and not yet in its place
        with pytest.raises(Killed):
            make_cache()
    cache, model, work = make_cache()
    assert_fresh(cache, model, work)
    (home,) = (work.root / "features").iterdir()
    assert not list(home.glob(".*"))


def test_several_at_once_fill_each_file_once(make_model, monkeypatch):
    """Each starts while another is half done and needs other taps; once, all truncated the same files."""
    filled, compute = [], feature_cache._compute

    def slow(*arguments):
        time.sleep(0.02)
        return compute(*arguments)

    def counting(path, *arguments):
        filled.append(path.name)
        return allocate(path, *arguments)

    monkeypatch.setattr(feature_cache, "_BATCH", 2)
    monkeypatch.setattr(feature_cache, "_compute", slow)
    monkeypatch.setattr(feature_cache, "allocate", counting)
    models = [make_model(colour__method=method) for method in ("gan", "unet", "unet")]

    with ThreadPoolExecutor(3) as pool:
        caches = list(pool.map(cached, *zip(*models, strict=True)))
    everything, upright = np.arange(16), np.zeros(16, dtype=bool)
    for cache, (model, work) in zip(caches, models, strict=True):  # batches of 2 sum in another order
        pairs = zip(cache.read(everything, upright), fresh(model, work, everything, upright), strict=True)
        for read, computed in pairs:
            torch.testing.assert_close(read, computed, rtol=1e-5, atol=1e-5)
    assert sorted(filled) == [f".tap-{n}.npy" for n in range(5)]


@pytest.mark.parametrize(("resample", "held"), [(False, 10), (True, 16)])
def test_features_are_computed_of_images_that_heads_read_once_for_all_seeds(tiny, make_work, resample, held):
    """Features of half of the 12 training images and of 4 for validation; of all 16 if seeds use different halves."""
    pretrained = {
        "name": "tf_efficientnet_lite0",
        "weights": "package",
    }  # without weights each seed has its own
    supervision = {"image_share": 0.5, "resample": resample}
    config = tiny(encoder=pretrained, supervision=supervision, training__finetune__epochs=0)
    work = make_work(config)
    for seed in (0, 1):
        run_head(work, config.model_copy(update={"seed": seed}), "class", "multi")
    (path,) = (work.root / "features").glob("*/tap-*.npy")
    assert np.load(path).shape[:2] == (2, held)


def test_unwritable_folder_is_named(make_cache, tmp_path):
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "features").write_text("a file where the folder should go")
    with pytest.raises(RunError, match=r"Cannot write .*training\.cache_gib=0"):
        make_cache("blocked")
