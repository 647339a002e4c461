"""Scores do not depend on threads, order, file formats, parts or a kill; they are cached by content."""

import shutil
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from score_folders import colourings, picture, true_images, write_images

from knowhue.inference.pipeline import ByteBudget
from knowhue.scoring import parts
from knowhue.scoring.measures import DIFFERENCES_OF_MEANS, measure_image, prepare_image
from knowhue.scoring.pairing import ALWAYS, GRAY, MEAN, TRUTH, Pairs, Stored, System, pair
from knowhue.scoring.parts import PART_IMAGES, measure_rows
from knowhue.scoring.protocols import PROTOCOLS, Protocol

SMALL = Protocol.model_validate(PROTOCOLS["stretch-256"].model_dump() | {"size_px": 32})
DEEP = PROTOCOLS["original"]


def bytes_of(measured):
    return {
        row: (each.counts.tobytes(), {k: v.tobytes() for k, v in each.columns.items()})
        for row, each in measured.items()
    }


def run(folders, cache, workers=1, protocol=SMALL):
    return measure_rows(
        pair(folders.truth, [str(folders.ours), str(folders.theirs)]), protocol, cache, workers
    )


def test_rows_are_systems_and_what_is_always_there(folders, tmp_path):
    found = run(folders, tmp_path / "cache")
    assert list(found) == ["ours", "theirs", *ALWAYS]
    assert all(each.columns["ab_l1"].shape == (6,) for each in found.values())
    assert found[TRUTH].columns["ciede2000"].tolist() == [0.0] * 6
    error = {row: each.columns["ab_l1"].mean() for row, each in found.items()}
    assert error[TRUTH] < error["truth as JPEG 95"] < error["truth as JPEG 75"]
    assert error["ours"] < error["theirs"] < error[GRAY]
    mean = found[MEAN].columns
    assert abs(mean["a_mean"].mean() - found[TRUTH].columns["a_mean"].mean()) < 1  # 8-bit codes, clipped
    assert all(name.startswith("colourfulness") for name in DIFFERENCES_OF_MEANS)


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("together", [1, 4])
def test_threads_and_parts_change_no_bit(folders, tmp_path, monkeypatch, workers, together):
    expected = bytes_of(run(folders, tmp_path / "one"))
    monkeypatch.setattr(parts, "PART_IMAGES", together)
    assert bytes_of(run(folders, tmp_path / "two", workers)) == expected


def test_formats_and_the_order_of_files_change_no_bit(folders, tmp_path):
    expected = bytes_of(run(folders, tmp_path / "one"))
    true = true_images()
    for name, images in (
        ("truth", true),
        ("ours", colourings(true, 0.8)),
        ("theirs", colourings(true, 0.4, seed=50)),
    ):
        shutil.rmtree(getattr(folders, name))
        backwards = dict(reversed(list(images.items())))
        write_images(
            getattr(folders, name), backwards, {"truth": ".tif", "ours": ".bmp", "theirs": ".ppm"}[name]
        )
    assert bytes_of(run(folders, tmp_path / "two")) == expected


def test_what_was_measured_is_not_measured_again_and_damage_is(folders, tmp_path, monkeypatch):
    expected = bytes_of(run(folders, tmp_path / "cache"))
    kept = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(kept) == 7  # a row each
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    kept[1].write_bytes(b"")
    measured = []
    monkeypatch.setattr(
        parts.measures, "measure_image", lambda *given: measured.append(1) or measure_image(*given)
    )
    assert bytes_of(run(folders, tmp_path / "cache")) == expected
    assert len(measured) == 2 * 6
    assert bytes_of(run(folders, tmp_path / "cache")) == expected
    assert len(measured) == 2 * 6


@pytest.mark.parametrize("lost", ["_counts", "_places", "ab_l1", "names of arrays"])
def test_what_was_kept_without_one_of_its_arrays_is_measured_again(folders, tmp_path, lost):
    expected = bytes_of(run(folders, tmp_path / "cache"))
    (kept, *_) = sorted((tmp_path / "cache").rglob("*.npz"))
    with np.load(kept) as arrays:
        others = {name: arrays[name] for name in arrays.files if name != lost}
        assert len(others) == len(arrays.files) - 1
    np.savez(kept, **others)
    assert bytes_of(run(folders, tmp_path / "cache")) == expected
    with np.load(kept) as arrays:
        assert lost in arrays.files


def test_other_pixels_protocols_and_truths_are_measured_anew(folders, tmp_path):
    first = run(folders, tmp_path / "cache")
    write_images(folders.ours, {"class0/image0": picture(40)})
    second = run(folders, tmp_path / "cache")
    assert second["ours"].columns["ab_l1"][0] != first["ours"].columns["ab_l1"][0]
    np.testing.assert_array_equal(second["theirs"].columns["ab_l1"], first["theirs"].columns["ab_l1"])
    third = run(folders, tmp_path / "cache", protocol=DEEP)
    assert third["ours"].columns["ab_l1"].tolist() != second["ours"].columns["ab_l1"].tolist()
    write_images(folders.truth, {"class1/image1": picture(41)})
    fourth = run(folders, tmp_path / "cache")
    assert fourth[MEAN].columns["ab_l1"][0] != second[MEAN].columns["ab_l1"][0]  # of another mean


KILLED = """
import os, sys
from pathlib import Path
from knowhue.inference.pipeline import ByteBudget
from knowhue.scoring import parts
from knowhue.scoring.pairing import pair
from knowhue.scoring.protocols import Protocol
parts.PART_IMAGES = 2
done, kept = [], parts.write_arrays
def write_arrays(*given):
    if len(done) == 5:
        os._exit(9)
    done.append(1)
    return kept(*given)
parts.write_arrays = write_arrays
truth, ours, theirs, cache, protocol = sys.argv[1:]
parts.measure_rows(pair(Path(truth), [ours, theirs]), Protocol.model_validate_json(protocol), Path(cache), 1)
"""


def test_killed_and_resumed_is_uninterrupted(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_IMAGES", 2)
    expected = bytes_of(run(folders, tmp_path / "whole"))
    paths = [str(each) for each in (*folders, tmp_path / "killed")]
    ended = subprocess.run([sys.executable, "-c", KILLED, *paths, SMALL.model_dump_json()], check=False)
    assert ended.returncode == 9
    assert len(list((tmp_path / "killed").rglob("*.npz"))) == 5
    assert bytes_of(run(folders, tmp_path / "killed")) == expected


def test_no_torch_on_the_way(folders, tmp_path):
    code = (
        "import sys; from pathlib import Path; from knowhue.apps.score import score; import knowhue.scoring.page;"
        "from knowhue.scoring.pairing import pair; from knowhue.scoring.parts import measure_rows;"
        "from knowhue.scoring.protocols import PROTOCOLS; t, o, c = sys.argv[1:];"
        "measure_rows(pair(Path(t), [o]), PROTOCOLS['original'], Path(c), 1);"
        "print([each for each in ('torch', 'kornia', 'timm', 'sklearn', 'numba') if each in sys.modules])"
    )
    arguments = [str(folders.truth), str(folders.ours), str(tmp_path / "cache")]
    said = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    assert said.stdout == "[]\n"


def test_several_samples_are_averaged_and_the_best_is_kept(tmp_path):
    true = true_images(3, 1)
    truth = write_images(tmp_path / "truth", true)
    made = [colourings(true, share, seed) for share, seed in ((0.2, 1), (0.9, 2))]
    for number, images in enumerate(made):
        write_images(tmp_path / f"many/sample-{number}", images)
    found = measure_rows(pair(truth, [str(tmp_path / "many")]), DEEP, tmp_path / "cache", 1)["many"].columns
    for place, name in enumerate(sorted(true)):
        each = [
            measure_image(prepare_image(images[name]), prepare_image(true[name]), DEEP)[0] for images in made
        ]
        for column, best in (("psnr_rgb", max), ("ciede2000", min)):
            values = [row[column] for row in each]
            assert found[column][place] == pytest.approx(np.mean(values), rel=1e-12)
            assert found[f"best_{column}"][place] == best(values)
    assert (found["diversity_ciede2000"] > 1).all()


def test_threads_have_only_so_many_pixels_together(folders, tmp_path, monkeypatch):
    measure, together, most = parts.measures.measure_image, [], []

    def counted(*given):
        together.append(1)
        most.append(len(together))
        time.sleep(0.002)
        found = measure(*given)
        together.pop()
        return found

    monkeypatch.setattr(parts.measures, "measure_image", counted)
    monkeypatch.setattr(parts, "PART_IMAGES", 1)
    monkeypatch.setattr(parts, "_BUDGET", ByteBudget(32 * 32 * parts._PIXEL_BYTES))
    run(folders, tmp_path / "one", workers=4)
    assert max(most) == 1
    most.clear()
    monkeypatch.setattr(parts, "_BUDGET", ByteBudget(10 * 32 * 32 * parts._PIXEL_BYTES))
    run(folders, tmp_path / "four", workers=4)
    assert max(most) > 1


def test_what_another_decoder_gave_is_not_used(folders, tmp_path, monkeypatch):
    assert {"pillow", "pyvips-binary"} <= parts.DECODERS.keys()  # which brings libvips
    run(folders, tmp_path / "cache")
    kept = len(list((tmp_path / "cache").rglob("*.npz")))
    monkeypatch.setattr(parts, "DECODERS", {"pillow": "0"})
    run(folders, tmp_path / "cache")
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 2 * kept


def test_memory_does_not_grow_with_the_colours_that_images_have(tmp_path, monkeypatch):
    """Of an image its numbers are held, not which of 313 x 152 colours and distances its pixels have."""
    random, peaks = np.random.default_rng(0), []

    def kept(part, protocol, cache):
        places = np.sort(random.choice(313 * 152, 10_000, replace=False))
        columns = {name: np.zeros(len(part.names)) for name in ("a_mean", "b_mean", "psnr_rgb")}
        kept = {**columns, "_places": places, "_counts": np.ones(10_000, np.int64)}
        return {row: dict(kept) for row in part.rows}

    monkeypatch.setattr(parts, "_cached_rows", kept)
    for count in (10 * PART_IMAGES, 30 * PART_IMAGES):
        stored = {f"{number:05}": Stored(tmp_path, f"{number}", "PNG") for number in range(count)}
        pairs = Pairs(stored, (System("made", {name: (file,) for name, file in stored.items()}),), (), ())
        tracemalloc.start()
        found = measure_rows(pairs, SMALL, tmp_path, 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert all(each.counts.sum() == 10_000 * count / PART_IMAGES for each in found.values())
    # kept apart, the colours of a part would be 160 kB a row
    assert peaks[1] - peaks[0] < 20 * len(found) * 15_000
